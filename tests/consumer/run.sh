#!/usr/bin/env bash
# run.sh BUILD_DIR: installs quern into a scratch prefix, builds the consumer project against that prefix alone and runs it on a bundled
# model.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")" && pwd)
model=$source_dir/../data/models/mini-qwen3moe
work=$1/tests/consumer/work
rm -rf "$work"

cmake --install "$1" --prefix "$work/prefix" >/dev/null
for file in bin/quern include/quern/verify/drift/drift_job.h include/quern/formats/types/tensor.h share/man/man1/quern.1 \
            share/bash-completion/completions/quern share/zsh/site-functions/_quern share/fish/vendor_completions.d/quern.fish; do
  [[ -s "$work/prefix/$file" ]] || { echo "not installed: $file"; exit 1; }
done
for file in $(cd "$work/prefix/include/quern" && find . -name '*-inl.h'); do
  echo "installed, but of no use to others: $file"; exit 1
done

cmake -S "$source_dir" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$work/prefix"
cmake --build "$work/build"

for i in {1..60}; do echo "Line $i: the quick brown fox jumps over the lazy dog, and nobody knows why it does so again."; done > "$work/text"
"$work/build/consumer" "$model" "$work/text" "$work/out" | tee "$work/output"
grep -q '^(noise floor): mean KL ' "$work/output"
grep -q 'Q4_K_M.gguf: mean KL 0\.[0-9]*[1-9]' "$work/output"
grep -q '^source: ok$' "$work/output"
