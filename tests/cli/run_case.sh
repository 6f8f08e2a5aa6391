#!/usr/bin/env bash
# run_case.sh QUERN DATA_DIR CASE.sh [--record]: runs a case in a fresh folder and compares its standard output, standard error and exit code with
# CASE.stdout, CASE.stderr and CASE.exit beside it (absent: empty and 0). The case finds the program as $QUERN, tests/data as
# $DATA. The path of DATA in the output is written as DATA. --record writes the expected files instead.
set -uo pipefail
export QUERN=$1 DATA=$2 LC_ALL=C
case=$(realpath "$3") record=${4:-}
expected=${case%.sh}
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
mkdir "$folder/work" && cd "$folder/work" || exit 1

bash "$case" >../stdout 2>../stderr </dev/null
echo $? >../exit
# What differs between machines, and errors, which differ between versions of an encoder, are masked. ThreadSanitizer's symbolizer complains
# about code that is in no file.
sed -i -E -e '/^LLVMSymbolizer: /d' -e "s|$DATA|DATA|g" -e 's/in [0-9]+\.[0-9] s, peak memory [0-9.]+ [kKMG]?B/in T s, peak memory M/' \
  -e 's/at most [0-9.]+ [kKMG]?B of memory/at most M of memory/' -e 's/works is [0-9]+MiB/works is M/' -e 's/; memory [0-9.]+ [kKMG]?B$/; memory M/' \
  -e 's/"(seconds|encode_seconds|peak_memory_bytes|memory_bytes|memory_budget_bytes|relative_error)": [0-9.e+-]+/"\1": N/' \
  -e 's/^(.*\.gguf.* [kKMG]?B) +[0-9]+\.[0-9]  .*$/\1 T E/' -e 's/^quern [0-9]+\.[0-9]+\.[0-9]+$/quern VERSION/' ../stdout ../stderr
[[ $(cat ../exit) == 0 ]] && : >../exit

status=0
for part in stdout stderr exit; do
  if [[ $record == --record ]]; then
    rm -f "$expected.$part"
    [[ -s ../$part ]] && cp "../$part" "$expected.$part"
  elif ! diff -u --label "expected $part" --label "actual $part" "$([[ -f $expected.$part ]] && echo "$expected.$part" || echo /dev/null)" "../$part"; then
    status=1
  fi
done
exit $status
