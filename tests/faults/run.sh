#!/usr/bin/env bash
# run.sh QUERN FAULTS.so DATA short|long: runs long commands with one fault each and checks what must hold afterwards:
# - no file under a final name that differs from the one of a run without faults (publish makes lists of tensors for itself meanwhile);
# - an exit code that tells a failure: 3 (I/O), 4 (memory), or 0 when the fault was survived; where a failed allocation throws through a
#   function that may not throw, the C++ library ends the process and says so (libhwy before main, destructors of nlohmann::json); a
#   nlohmann::json that was only half made crashes in its destructor, libcrypto when it has no memory for its own beginnings, and libhdf5
#   crashes or ends the process with 255 (H5I_register);
# - the same command, run again, succeeds and leaves the same files, byte for byte, and nothing else.
set -uo pipefail
quern=$(realpath "$1") faults=$(realpath "$2") data=$(realpath "$3") depth=$4
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
export TMPDIR=$folder/tmp
mkdir tmp
for i in {1..400}; do echo "The $i horses of the mill ground $((i * 7)) sacks of corn."; done >text.txt

failed=0 n_faults=0 n_continued=0
declare -A outcomes
complain() { echo "$*" >&2; failed=1; }

# The index of a part has a time in it.
sums() { (cd "$1" && find . -type f ! -name '*.part' ! -name '*.journal' ! -name '*.part-0*.json' | sort | xargs -r sha256sum); }

# Whether the crash that faults told of lies in a library that crashes without memory.
is_of_a_library() {
  local file offset
  read -r file offset < <(sed -n 's/^faults: crash in \(.*\) at /\1 /p' stderr)
  [[ $file == */libcrypto.so* || $file == */libhdf5_serial.so* ]] ||
    [[ $file == "$quern" && $(addr2line -Cfe "$quern" "$offset" | head -1) == nlohmann::* ]]
}

is_expected() {  # CODE FAULT NAME
  case $1:$2 in
    0:* | 3:* | 4:malloc*) return 0 ;;
    255:malloc*) [[ $3 == reference ]] ;;
    134:malloc*) grep -q "terminate called after throwing an instance of 'std::bad_alloc'" stderr ;;
    139:malloc*) is_of_a_library ;;
    *) return 1 ;;
  esac
}

# check NAME FAULT: the command in "${command[@]}" writes to $out
check() {
  local name=$1 fault=$2 code
  rm -rf out && mkdir out
  timeout --signal=ABRT 300 env FAULT="$fault" LD_PRELOAD="$faults" "${command[@]}" >stdout 2>stderr
  code=$?
  n_faults=$((n_faults + 1))
  outcomes[$code]=$((${outcomes[$code]:-0} + 1))
  is_expected "$code" "$fault" "$name" || complain "$name with $fault: exit $code: $(tail -1 stderr)"
  sums out | grep -v -e SHA256SUMS -e '-publish' -e '.tensors.json' | while read -r line; do
    grep -qF "$line" "$name.sums" || echo "$line"
  done >wrong
  [[ -s wrong ]] && complain "$name with $fault: not as it should be: $(cat wrong)"
  if [[ $code != 0 ]]; then
    "${command[@]}" >stdout 2>stderr || grep -q 'exists.*--force' stderr || complain "$name after $fault: cannot go on: $(tail -1 stderr)"
    grep -q 'going on from' stderr && n_continued=$((n_continued + 1))
  fi
  sums out | diff -q - "$name.sums" >/dev/null || complain "$name after $fault: other files: $(sums out | diff - "$name.sums" | head -3)"
  [[ -z $(find out -name '*.part' -o -name '*.journal') ]] || complain "$name after $fault: leaves $(ls out)"
}

# some MOST N: N numbers spread over 1..MOST
some() {
  local i
  for ((i = 0; i < $2; ++i)); do echo $((1 + $1 * i / $2)); done | sort -nu
}

run_faults() {
  local name=$1 each=$2 call what most n
  rm -rf out && mkdir out
  FAULT=count LD_PRELOAD=$faults "${command[@]}" >stdout 2>counts || complain "$name: fails: $(tail -1 counts)"
  grep -q '^faults: malloc [1-9]' counts || complain "$name: $faults is not at work"
  sums out >"$name.sums"
  for pair in pwrite:ENOSPC pwrite:EIO write:ENOSPC fdatasync:EIO fsync:EIO rename:EIO pread:EIO malloc:null; do
    call=${pair%:*} what=${pair#*:}
    most=$(sed -n "s/^faults: $call //p" counts)
    [[ ${most:-0} -gt 0 ]] || continue
    for n in $(some "$most" "$each"); do check "$name" "$call:$what:$n"; done
  done
  for fault in pwrite:EINTR:3 pwrite:short:5 pread:EINTR:3 pread:short:7 write:short:2; do check "$name" "$fault"; done
}

each=2
[[ $depth == long ]] && each=20
command=("$quern" convert "$data/models/mini-v4" -o out --type Q8_0 --type BF16 --split-size 1MB --sync-size 200KB --threads 2)
run_faults convert "$each"
"$quern" convert "$data/models/mini-llama3" -o source --type BF16 --threads 2 >/dev/null 2>&1
command=("$quern" quantize source/*BF16.gguf -o out/q.gguf --type Q4_0 --sync-size 100KB --threads 2)
run_faults quantize "$each"
if [[ $depth == long ]]; then
  command=("$quern" publish "$data/models/mini-llama3" -o out --type Q8_0 --type Q4_0 --sync-size 100KB --threads 2)
  run_faults publish 10
  command=("$quern" imatrix "$data/models/mini-llama3" --calib-text text.txt -o out/i.gguf --threads 2)
  run_faults imatrix 6
  command=("$quern" statistics "$data/models/mini-llama3" --calib-text text.txt --calib-tokens 1024 -o out --threads 2)
  run_faults statistics 6
  command=("$quern" drift "$data/models/mini-llama3" --save-reference out/r.h5 --eval-text text.txt --ctx 64 --chunks 2 --threads 2)
  run_faults reference 6
  command=("$quern" fit "$data/models/mini-llama3" --calib-text text.txt --size 1500KB --ctx 64 --chunks 2 --check-chunks 2 --rounds 0
    --cache cache -o out/recipe.json --threads 2)
  run_faults fit 4
  "$quern" convert "$data/models/mini-llama3" -o parts --type Q8_0 --type Q4_0 --plan-out plan.json --threads 2 >/dev/null 2>&1
  command=("$quern" convert --plan plan.json --part 1/2 -o out --threads 2)
  run_faults part 6
  for part in 1 2; do "$quern" convert --plan plan.json --part $part/2 --threads 2 >/dev/null 2>&1; done
  command=("$quern" merge plan.json parts/*.part-0*.json -o out)
  run_faults merge 6
fi
for code in "${!outcomes[@]}"; do echo "exit $code: ${outcomes[$code]}"; done
echo "$n_faults faults, $n_continued continued"
exit $failed
