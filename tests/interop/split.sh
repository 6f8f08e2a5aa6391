#!/usr/bin/env bash
# split.sh QUERN WORK_DIR MODEL_DIR TYPE: the model in small shards, of which the first has no tensors, and the same as one file, both
# with another name and chat template put in afterwards. Skipped (77) without the model.
set -euo pipefail
quern=$1 out=$2/split/$(basename "$3") model=$3 type=$4
[[ -d "$model" ]] || { echo "skipped: $model is not here"; exit 77; }
rm -rf "$out"
mkdir -p "$out"
"$quern" convert "$model" -o "$out/whole" --type "$type"
"$quern" convert "$model" -o "$out/shards" --type "$type" --split-size 500K
echo "{{ 'edited: ' + messages[0].content }}" >"$out/template.jinja"
for first in "$out"/whole/*.gguf "$out"/shards/*-00001-of-*.gguf; do
  "$quern" edit "$first" --template "$out/template.jinja" --set general.name=Edited
done
