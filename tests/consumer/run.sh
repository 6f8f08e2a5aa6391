#!/usr/bin/env bash
# run.sh BUILD_DIR: installs quern into a scratch prefix and builds projects against that prefix alone: the example of docs/library.md, one
# that uses a single library, and the same without CMake. Every header that users may include must compile alone.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")" && pwd)
model=$source_dir/../data/models/mini-qwen3moe
work=$1/tests/consumer/work
rm -rf "$work"

cmake --install "$1" --prefix "$work/prefix" >/dev/null
for file in bin/quern include/quern/verify/drift/drift_job.h include/quern/formats/types/tensor.h share/man/man1/quern.1 \
  share/bash-completion/completions/quern share/zsh/site-functions/_quern share/fish/vendor_completions.d/quern.fish \
  share/doc/quern/LICENSE share/doc/quern/docs/library.md; do
  [[ -s "$work/prefix/$file" ]] || { echo "not installed: $file"; exit 1; }
done
for file in $(cd "$work/prefix/include/quern" && find . -name '*-inl.h'); do
  echo "installed, but of no use to others: $file"; exit 1
done

compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$1/CMakeCache.txt")
(cd "$work/prefix/include" && find quern -name '*.h' | sed 's/.*/#include <&>/' >"$work/includes")
check_alone() { printf '%s\n' "$3" | "$1" -std=c++20 -fsyntax-only -Wall -Werror -I "$2" -x c++ - || { echo "not alone: $3"; exit 1; }; }
export -f check_alone
xargs -d '\n' -n 1 -P "$(nproc)" bash -c 'check_alone "$@"' check "$compiler" "$work/prefix/include" <"$work/includes"

configure() { cmake -S "$1" -B "$2" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_COMPILER=$compiler" "-DCMAKE_PREFIX_PATH=$work/prefix"; }
configure "$source_dir" "$work/build"
cmake --build "$work/build"

for i in {1..60}; do echo "Line $i: the quick brown fox jumps over the lazy dog, and nobody knows why it does so again."; done > "$work/text"
"$work/build/consumer" "$model" "$work/text" "$work/out" | tee "$work/output"
grep -q '^(noise floor): mean KL ' "$work/output"
grep -q 'Q4_K_M.gguf: mean KL 0\.[0-9]*[1-9]' "$work/output"
grep -q '^source: ok$' "$work/output"

# One library, where pkg-config knows no package but those that it needs.
mkdir "$work/pc"
for package in libpcre2-8 libhwy; do ln -s "$(pkg-config --variable=pcfiledir "$package")/$package.pc" "$work/pc/"; done
PKG_CONFIG_LIBDIR=$work/pc configure "$source_dir/part" "$work/part"
cmake --build "$work/part"
"$work/part/part" "$work"/out/*.gguf | grep -qx token_embd.weight

# Without CMake.
pkgconfig=$(dirname "$(find "$work/prefix" -name quern.pc)")
# shellcheck disable=SC2046
"$compiler" -std=c++20 "$source_dir/part/main.cc" -o "$work/plain" $(PKG_CONFIG_PATH=$pkgconfig pkg-config --cflags --libs quern)
"$work/plain" "$work"/out/*.gguf | grep -qx token_embd.weight
