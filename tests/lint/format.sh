#!/usr/bin/env bash
# Checks every C++ file of the repository against .clang-format; `format.sh --fix` rewrites them. Run from the repository root.
# Skipped (77) without clang-format 14, Debian 12's: other versions disagree in details.
set -euo pipefail
clang_format=$(command -v clang-format-14 || command -v clang-format) || { echo "clang-format is not installed"; exit 77; }
"$clang_format" --version | grep -q 'version 14\.' || { echo "needs clang-format 14, found $("$clang_format" --version)"; exit 77; }

mode=(--dry-run --Werror)
[[ "${1:-}" != --fix ]] || mode=(-i)
find . \( -path ./build -o -name '.?*' -o -name node_modules \) -prune -o -type f \( -name '*.cc' -o -name '*.h' \) -print0 |
  xargs -0 -r -n 16 -P "$(nproc)" "$clang_format" "${mode[@]}"
