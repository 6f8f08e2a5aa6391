#!/usr/bin/env bash
# run.sh BUILD_DIR: installs quern into a scratch prefix, builds the consumer project against that prefix alone and runs it.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")" && pwd)
work=$1/tests/consumer/work
rm -rf "$work"

cmake --install "$1" --prefix "$work/prefix" >/dev/null
for file in bin/quern include/quern/formats/gguf.h share/man/man1/quern.1; do
  [[ -s "$work/prefix/$file" ]] || { echo "not installed: $file"; exit 1; }
done

cmake -S "$source_dir" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$work/prefix"
cmake --build "$work/build"
[[ "$("$work/build/consumer" Q4_K)" == 4.5000 ]]
