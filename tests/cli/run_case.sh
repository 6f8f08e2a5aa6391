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
sed -i "s|$DATA|DATA|g" ../stdout ../stderr
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
