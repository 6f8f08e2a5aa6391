#!/usr/bin/env bash
# run.sh [--record] [--jobs N] BUILD_DIR SECONDS [ENTRY...]: fuzzes the entries (all that BUILD_DIR has, by default), N at a time (1), each
# for SECONDS or 5e7 executions, from its corpus and what earlier runs found. --record adds what was done to executions.tsv. Inputs that
# are findings stay in BUILD_DIR/found/ENTRY; exit 1 if there are any.
set -uo pipefail
here=$(realpath "$(dirname "$0")")
table='' n_jobs=1
while [[ ${1:-} == --* ]]; do
  case "$1" in
    --record) table=$here/executions.tsv ;;
    --jobs) n_jobs=$2; shift ;;
    *) break ;;
  esac
  shift
done
[[ $# -ge 2 && $1 != --* ]] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
build=$(realpath "$1") seconds=$2
shift 2
entries=("$@")
[[ ${#entries[@]} -gt 0 ]] || mapfile -t entries < <(cd "$build/tests/fuzz" && find . -maxdepth 1 -name 'quern_fuzz_*' -type f -executable | sed 's/.*quern_fuzz_//' | sort)
[[ ${#entries[@]} -gt 0 ]] || { echo "run.sh: $build has no fuzz entries; build the preset 'fuzz'" >&2; exit 2; }
export here table build seconds

# add_to_table ENTRY EXECUTIONS SECONDS
add_to_table() {
  (
    flock 9
    touch "$table"
    awk -v OFS='\t' -v entry="$1" -v n="$2" -v s="$3" '
      $1 == entry { $2 += n; $3 += s; seen = 1 }
      { print $1, sprintf("%d", $2), sprintf("%d", $3) }
      END { if (!seen) print entry, n, s }' "$table" | sort >"$table.new" && mv "$table.new" "$table"
  ) 9>"$build/found/lock"
}

# Whether the flaw behind INPUT lies in libhdf5: the innermost frame that is of either is its, not ours. Memory that runs out is looked
# for in single requests (a watch over all of it would report at the same time, without the frames). An input that does no harm by itself
# met what libhdf5 had lost or overwritten with the inputs before it.
is_of_libhdf5() {  # INPUT
  local limits=()
  [[ $1 != */oom-* ]] || limits=(-malloc_limit_mb=512 -rss_limit_mb=0)
  "${program[@]}" "${limits[@]}" "$1" >"$found/again" 2>&1 ||
    [[ $(grep -m1 -oE '^ *#[0-9]+ .*(quern::|libhdf5)' "$found/again") == *libhdf5 ]]
}

# Removes what crashed libhdf5; fails when inputs are left.
drop_inputs_of_libhdf5() {
  local input n_dropped=0 left=0
  for input in "$found"/{crash,oom,timeout}-*; do
    [[ -e $input ]] || continue
    if is_of_libhdf5 "$input"; then
      rm "$input"
      n_dropped=$((n_dropped + 1))
    else
      echo "$entry: a finding: $input"
      left=1
    fi
  done
  echo "$entry: $n_dropped inputs stopped inside libhdf5"
  return "$left"
}

fuzz() {  # ENTRY
  local entry=$1 found=$build/found/$1 largest code executions cpu program options=()
  mkdir -p "$found/corpus"
  largest=$(find "$here/corpus/$entry" -type f -printf '%s\n' | sort -n | tail -1)
  program=("$build/tests/fuzz/quern_fuzz_$entry" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$found/")
  if [[ $entry == reference ]]; then  # libhdf5 loses memory over damaged files, asks for as much as they say, and crashes: children may
    program+=(-malloc_limit_mb=-1)
    options=(-fork=1 -ignore_crashes=1)
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
  fi
  TIMEFORMAT='%U %S'
  {
    time "${program[@]}" "${options[@]}" -runs=50000000 -max_total_time="$seconds" -max_len=$((largest > 4096 ? largest : 4096)) \
      -print_final_stats=1 "$found/corpus" "$here/corpus/$entry" >"$found/log" 2>&1
    code=$?
  } 2>"$found/cpu"
  cpu=$(awk '{ printf "%d", $1 + $2 }' "$found/cpu")
  executions=$(sed -nE 's/^stat::number_of_executed_units: *//p; s/^#([0-9]+): cov: .*/\1/p' "$found/log" | tail -1)
  [[ -z $table ]] || add_to_table "$entry" "${executions:-0}" "$cpu"
  echo "$entry: ${executions:-0} executions in $cpu s of CPU, exit $code"
  if [[ $entry == reference ]]; then
    drop_inputs_of_libhdf5
  elif [[ $code != 0 ]]; then
    grep -m3 -E 'ERROR|SUMMARY|terminate|what\(\)' "$found/log"
    return 1
  fi
}
export -f add_to_table is_of_libhdf5 drop_inputs_of_libhdf5 fuzz
printf '%s\n' "${entries[@]}" | xargs -P "$n_jobs" -I{} bash -c 'fuzz {}' || exit 1
