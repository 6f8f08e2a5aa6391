#!/usr/bin/env bash
# random.sh MAKE_MODELS RANDOM_GOLDENS FOLDER: makes the random models of tests/data/random-models and their goldens.
set -euo pipefail
rm -rf "$3"
mkdir -p "$3"
"$1" "$3" >/dev/null
for model in "$3"/*; do
  "$2" "$model"
done
