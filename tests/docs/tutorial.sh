#!/usr/bin/env bash
# tutorial.sh QUERN [--record]: runs the commands of docs/tutorial.md, in order and in a fresh folder that looks like the repository, and
# compares what they print with what stands there. Of blocks that begin with ```console, lines after "$ " are commands, the others what they
# print, standard error included. Figures vary with versions, machines and the texts, so numbers, sums and widths of columns are masked, words
# are not. --record writes the output of this machine into the document instead.
set -uo pipefail
quern=$(realpath "$1") record=${2:-}
root=$(cd "$(dirname "$0")/../.." && pwd)
document=$root/docs/tutorial.md
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tree/bin" && cd "$work/tree" || exit 1
ln -s "$root/docs" "$root/tests" .
ln -s "$quern" bin/quern
export PATH=$PWD/bin:$PATH LC_ALL=C

mask() { sed -E -e 's/\b[0-9a-f]{16,64}\b/HASH/g' -e 's/\b[0-9]+([.,][0-9]+)*(e[+-]?[0-9]+)?/N/g' -e 's/ +/ /g' -e 's/ $//' -e 's/(N )[kMG]?B\b/\1B/g' "$1"; }

inside=0 commands=0
while IFS= read -r line; do
  if ((inside)) && [[ "$line" != '```' && "$line" != '$ '* ]]; then
    printf '%s\n' "$line" >>"$work/expected"
    continue
  fi
  printf '%s\n' "$line" >>"$work/expected"
  printf '%s\n' "$line" >>"$work/actual"
  case "$line" in
    '```console') inside=1 ;;
    '```') inside=0 ;;
    '$ '*)
      ((inside)) || continue
      commands=$((commands + 1))
      bash -c "${line#\$ }" >>"$work/actual" 2>&1 </dev/null || { echo "exit $?: $line"; tail -5 "$work/actual"; exit 1; }
      ;;
  esac
done <"$document"
((commands > 0)) || { echo "$document has no commands"; exit 1; }
if [[ "$record" == --record ]]; then
  cp "$work/actual" "$document"
else
  diff -u --label "$document" --label "what it prints" <(mask "$work/expected") <(mask "$work/actual")
fi
