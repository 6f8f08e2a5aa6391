#!/usr/bin/env bash
# Every schema that the sources name has a row in docs/formats/json.md, and every row is a schema. What a row calls "below" has a heading, and
# the file that it links mentions the schema. Run from the repository root.
set -euo pipefail
readonly page=docs/formats/json.md
bad=0
complain() { echo "$1"; bad=1; }

sources=$(grep -rhoE --include='*.cc' --include='*.h' '"quern\.[a-z-]+/[0-9]+"' cli convert formats quantize recipes runtime verify | tr -d '"' | sort -u)
rows=$(sed -nE 's/^\| `(quern\.[a-z-]+\/[0-9]+)` .*/\1/p' "$page" | sort)
[[ -n "$sources" && -n "$rows" ]] || { echo "no schemas found"; exit 1; }
while read -r schema; do complain "$schema is in the sources and no row of $page"; done < <(comm -23 <(echo "$sources") <(echo "$rows") | sed '/^$/d')
while read -r schema; do complain "$page has $schema, which no source names"; done < <(comm -13 <(echo "$sources") <(echo "$rows") | sed '/^$/d')

for schema in $rows; do
  row=$(grep -F "| \`$schema\` " "$page")
  if [[ "$row" == *"| below |" ]]; then
    grep -qxF "## $schema" "$page" || complain "$page has no section about $schema"
  else
    document=$(sed -E 's/.*\(([^()]+)\) \|$/\1/' <<<"$row")
    grep -qF "$schema" "$(dirname "$page")/$document" 2>/dev/null || complain "$document says nothing of $schema"
  fi
done
exit "$bad"
