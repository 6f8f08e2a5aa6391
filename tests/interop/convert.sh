#!/usr/bin/env bash
# convert.sh QUERN WORK_DIR MODEL_DIR [--calib-text FILE] TYPE...: converts the model into WORK_DIR/models/NAME, to types and shipped
# recipes; with a text into WORK_DIR/models/NAME-imatrix, with an importance matrix of it. Skipped (77) without the model.
set -euo pipefail
quern=$1 out=$2/models/$(basename "$3") model=$3
shift 3
[[ -d "$model" ]] || { echo "skipped: $model is not here"; exit 77; }
arguments=()
if [[ $1 == --calib-text ]]; then
  "$quern" imatrix "$model" --calib-text "$2" -o "$out.imatrix.gguf" --force
  out+=-imatrix
  arguments+=(--imatrix "${out%-imatrix}.imatrix.gguf")
  shift 2
fi
rm -rf "$out"
mkdir -p "$out"
for type in "$@"; do
  case $type in
    dynamic-*) arguments+=(--recipe "$type") ;;
    *) arguments+=(--type "$type") ;;
  esac
done
"$quern" convert "$model" -o "$out" "${arguments[@]}"
