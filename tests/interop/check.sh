#!/usr/bin/env bash
# check.sh WORK_DIR MODEL_DIR[+imatrix|+sequential] SCRIPT ARGS...: runs SCRIPT MODEL_DIR ARGS on what convert.sh made of the model, with
# the Node that install.sh brought. Skipped (77) where the model or Node is not there.
set -euo pipefail
work=$1 model=${2%+*} script=$3
files=("$work/models/$(basename "$2")"/*.gguf)
shift 3
[[ -d "$model" ]] || { echo "skipped: $model is not here"; exit 77; }
[[ -f "$work/installed-lock.json" ]] || { echo "skipped: the packages are not installed"; exit 77; }
exec "$work/node_modules/.bin/node" "$work/$script" "$model" "$@" "${files[@]}" </dev/null
