#!/usr/bin/env bash
# Every test that docs/promises.md names must exist. promises.sh BUILD_DIR; run from the repository root.
set -euo pipefail
readonly document=docs/promises.md
tests=$(ctest --test-dir "$1" -N)
missing=0 named=0
while IFS= read -r name; do
  named=$((named + 1))
  grep -qE "[ ./]${name//./\\.}(/|$| )" <<<"$tests" || { echo "$document names $name, which is no test"; missing=1; }
done < <(grep '^|' "$document" | sed 's/.*| \([^|]*\) |$/\1/' | grep -oE '`[^`]+`' | tr -d '`')
((named > 0)) || { echo "$document names no tests"; exit 1; }
exit "$missing"
