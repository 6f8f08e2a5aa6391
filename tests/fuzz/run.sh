#!/usr/bin/env bash
# run.sh BUILD_DIR SECONDS [ENTRY...]: fuzzes the entries (all that BUILD_DIR has, by default) one after the other, each for SECONDS or
# 5e7 executions, from its corpus and what earlier runs found, and adds what was done to executions.tsv. Inputs that are findings stay in
# BUILD_DIR/found/ENTRY; exit 1 if there are any.
set -uo pipefail
[[ $# -ge 2 ]] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
build=$(realpath "$1") seconds=$2
shift 2
here=$(realpath "$(dirname "$0")") table=$here/executions.tsv
readonly most=50000000
entries=("$@")
[[ ${#entries[@]} -gt 0 ]] || mapfile -t entries < <(cd "$build/tests/fuzz" && find . -name 'quern_fuzz_*' -executable | sed 's/.*quern_fuzz_//' | sort)
[[ ${#entries[@]} -gt 0 ]] || { echo "run.sh: $build has no fuzz entries; build the preset 'asan'" >&2; exit 2; }

# add_to_table ENTRY EXECUTIONS SECONDS
add_to_table() {
  touch "$table"
  awk -v OFS='\t' -v entry="$1" -v n="$2" -v s="$3" '
    $1 == entry { $2 += n; $3 += s; seen = 1 }
    { print $1, sprintf("%d", $2), sprintf("%d", $3) }
    END { if (!seen) print entry, n, s }' "$table" | sort >"$table.new" && mv "$table.new" "$table"
}

status=0
for entry in "${entries[@]}"; do
  found=$build/found/$entry
  mkdir -p "$found/corpus"
  largest=$(find "$here/corpus/$entry" -type f -printf '%s\n' | sort -n | tail -1)
  options=()
  if [[ $entry == reference ]]; then  # libhdf5 loses memory over damaged files, and asks for as much as they say
    options=(-detect_leaks=0 -malloc_limit_mb=-1)
    export ASAN_OPTIONS=allocator_may_return_null=1
  fi
  started=$SECONDS
  "$build/tests/fuzz/quern_fuzz_$entry" -runs=$most -max_total_time="$seconds" -max_len=$((largest > 4096 ? largest : 4096)) -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$found/" "${options[@]}" "$found/corpus" "$here/corpus/$entry" >"$found/log" 2>&1
  code=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$found/log")
  add_to_table "$entry" "${executions:-0}" $((SECONDS - started))
  echo "$entry: ${executions:-0} executions in $((SECONDS - started)) s, exit $code"
  if [[ $code != 0 ]]; then
    status=1
    grep -m3 -E 'ERROR|SUMMARY|terminate|what\(\)' "$found/log"
  fi
done
exit $status
