# Sizes, memory and machines, from config.json alone and from a checkpoint whose file is then made; what the types of a mix are as rules.
"$QUERN" plan "$DATA/configs/deepseek-v4-flash.json" --recipe dynamic-2bit --type Q4_K_M || exit
"$QUERN" plan "$DATA/configs/llama-3.3-70b.json" --type Q4_K_M --ctx 8192 --machine mac-m3-ultra-96 --machine-memory 48GB --bandwidth 300GB/s --json || exit
"$QUERN" plan "$DATA/models/mini-v4" --type Q4_K_M --machine rtx4090-ram64 --write-recipe mix.json --json 2>/dev/null | grep -E '"(tensor|file)_bytes' || exit
"$QUERN" convert "$DATA/models/mini-v4" -o out --type Q4_K_M 2>/dev/null >&2 && stat -c %s out/*.gguf
cat mix.json
check() {
  "$QUERN" plan "$@"
  echo "exit $?" >&2
}
check "$DATA/models/mini-v4" --type Q4_K_M --machine mac-m3-ultra-255
check "$DATA/models/mini-v4" --type Q4_K_M --type Q8_0 --write-recipe mix.json
check "$DATA/models/mini-v4" --type Q4_K_M --machine-memory 48GB
check absent --type Q4_K_M
mkdir mini-v4 && cp "$DATA"/models/mini-v4/*.json mini-v4
"$QUERN" plan mini-v4/config.json --type Q4_K_M --json 2>/dev/null | grep file_bytes
"$QUERN" plan "$DATA/models/mini-v4" --type Q4_K_M --ctx 16777216 2>&1 >/dev/null | grep "trained for"
