#!/usr/bin/env bash
# convert.sh QUERN WORK_DIR MODEL_DIR TYPE...: converts the model into WORK_DIR/models/NAME, to types and shipped recipes. Skipped (77)
# without the model.
set -euo pipefail
quern=$1 out=$2/models/$(basename "$3") model=$3
shift 3
[[ -d "$model" ]] || { echo "skipped: $model is not here"; exit 77; }
rm -rf "$out"
mkdir -p "$out"
types=()
for type in "$@"; do
  case $type in
    dynamic-*) types+=(--recipe "$type") ;;
    *) types+=(--type "$type") ;;
  esac
done
"$quern" convert "$model" -o "$out" "${types[@]}"
