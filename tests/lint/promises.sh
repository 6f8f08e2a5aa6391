#!/usr/bin/env bash
# Every test that is named in a table whose last column is "test" must exist. promises.sh BUILD_DIR; run from the repository root.
set -euo pipefail
readonly documents=(docs/promises.md tests/fuzz/README.md)
tests=$(ctest --test-dir "$1" -N)
missing=0
for document in "${documents[@]}"; do
  named=0
  while IFS= read -r name; do
    named=$((named + 1))
    grep -qE "[ ./]${name//./\\.}(/|$| )" <<<"$tests" || { echo "$document names $name, which is no test"; missing=1; }
  done < <(awk '!/^\|/ { table = 0; next }
                !table { table = 1; named = /\| test \|$/; next }
                named { sub(/ \|$/, ""); sub(/.*\| /, ""); print }' "$document" | grep -oE '`[^`]+`' | tr -d '`')
  ((named > 0)) || { echo "$document names no tests"; missing=1; }
done
exit "$missing"
