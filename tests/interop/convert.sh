#!/usr/bin/env bash
# convert.sh QUERN WORK_DIR MODEL_DIR [--imatrix TEXT | --sequential TEXT] TYPE...: converts the model into WORK_DIR/models/NAME, to types and
# shipped recipes; with a text into WORK_DIR/models/NAME+imatrix, with an importance matrix of it, or each type alone into NAME+sequential,
# with error feedback. Skipped (77) without the model.
set -euo pipefail
quern=$1 out=$2/models/$(basename "$3") model=$3
shift 3
[[ -d "$model" ]] || { echo "skipped: $model is not here"; exit 77; }
arguments=() alone=()
case $1 in
  --imatrix)
    "$quern" imatrix "$model" --calib-text "$2" -o "$out.imatrix.gguf" --force
    arguments+=(--imatrix "$out.imatrix.gguf")
    out+=+imatrix
    shift 2
    ;;
  --sequential)
    alone+=(--feedback sequential --calib-text "$2" --calib-tokens 8192)
    out+=+sequential
    shift 2
    ;;
esac
rm -rf "$out"
mkdir -p "$out"
for type in "$@"; do
  case $type in
    dynamic-*) chosen=(--recipe "$type") ;;
    *) chosen=(--type "$type") ;;
  esac
  if ((${#alone[@]})); then
    "$quern" convert "$model" -o "$out" "${chosen[@]}" "${alone[@]}"
  else
    arguments+=("${chosen[@]}")
  fi
done
((${#alone[@]})) || "$quern" convert "$model" -o "$out" "${arguments[@]}"
