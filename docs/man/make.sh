#!/usr/bin/env bash
# make.sh QUERN: prints the manual page: quern.1.in with the version and the help texts of QUERN, so that the page never lags behind.
set -euo pipefail
quern=$1 version=$("$1" --version)

# A help text is a usage line, a sentence, then lines of group (9 columns), option (26 columns) and description, the example last.
verb_section() {
  "$quern" "$1" --help | awk '
    function roff(text) { gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text); return text }
    NR == 1 { sub(/^Usage: /, ""); print ".SS " roff($0); next }
    NR == 2 { print roff($0); next }
    /^Example: / { sub(/^Example: /, ""); print ".PP\nExample:\n.B " roff($0); next }
    { name = substr($0, 10, 25); sub(/ +$/, "", name); print ".TP\n.B " roff(name) "\n" roff(substr($0, 35)) }'
}

verbs=$("$quern" --help | awk 'NR > 2 && !/^Example:/ {split(substr($0, 10), words, " "); if (words[1] !~ /^-/) print words[1]}')
while IFS= read -r line; do
  if [[ "$line" == @VERBS@ ]]; then
    for verb in $verbs; do verb_section "$verb"; done
  else
    printf '%s\n' "${line//@VERSION@/$version}"
  fi
done <"$(dirname "$0")/quern.1.in"
