#!/usr/bin/env bash
# Usage: neon.sh DIGESTS SOURCE
# Builds the encoders for ARM (NEON) with Debian's cross compiler (g++-aarch64-linux-gnu), runs them in qemu-user, and compares their
# blocks with those of DIGESTS, the program of this machine. Every other file with vectors must compile.
set -eu
digests=$1
cd "$2"
for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
  command -v $tool > /dev/null || { echo "skipped: no $tool"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() {  # file
  aarch64-linux-gnu-g++ -std=c++20 -O2 -ffp-contract=off -march=armv8-a+crypto -DHWY_COMPILE_ONLY_STATIC -I. "$@"
}

for file in quantize/plain/{effort,encode}.cc quantize/plain/encode_*_simd.cc \
            formats/types/{blocks,dtype,codebooks,tensor,float_convert}.cc formats/base/error.cc tests/quantize/plain/encoder_digests.cc; do
  compile -c "$file" -o "$work/$(basename "$file" .cc).o"
done
for file in formats/*/*_simd.cc quantize/feedback/*_simd.cc runtime/*/*_simd.cc; do
  compile -fsyntax-only "$file"
done
aarch64-linux-gnu-g++ "$work"/*.o -o "$work/digests"
qemu-aarch64 -L /usr/aarch64-linux-gnu "$work/digests" > "$work/arm"
"$digests" > "$work/here"
diff "$work/here" "$work/arm"
echo "$(wc -l < "$work/arm") encoders and efforts make the same blocks"
