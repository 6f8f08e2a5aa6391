#!/usr/bin/env bash
# reference_ids.sh WORK_DIR ARGS...: runs reference_ids.mjs ARGS with the Node that install.sh brought. Skipped (77) where it did not.
set -euo pipefail
work=$1
shift
[[ -f "$work/installed-lock.json" ]] || { echo "skipped: the packages are not installed"; exit 77; }
cd "$work"
exec node_modules/.bin/node reference_ids.mjs "$@" </dev/null
