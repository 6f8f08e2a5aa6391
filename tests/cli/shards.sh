# GGUF shards are one model, of which the first is given. What people try to put them together with says so.
"$QUERN" convert "$DATA/models/mini-llama3" -o b --type Q8_0 --split-size 600KB >/dev/null 2>&1 || exit 9
rm b/SHA256SUMS b/*.json
first=$(echo b/*-00001-of-*.gguf)
try() { "$QUERN" "$@" || echo "exit $?"; }
try merge b/*.gguf -o o
try quantize b/*.gguf -o o.gguf --type Q8_0
try quantize b -o o.gguf --type Q8_0
try inspect b >/dev/null
try doctor b
cat b/*.gguf >cat.gguf && try inspect cat.gguf
"$QUERN" quantize "$first" -o one.gguf --type lossless >/dev/null 2>&1 && try diff "$first" one.gguf
split -n 2 one.gguf one.gguf-split- && try inspect one.gguf-split-aa
try inspect one.gguf-split-ab
