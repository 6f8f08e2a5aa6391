# Data that cannot be converted: one line each, exit code 3, nothing left behind.
check() {
  "$QUERN" convert "$@" -o out --type Q8_0
  echo "exit $?" >&2
}
check absent
cp -r "$DATA/models/mini-llama3" cut && truncate -s -1 cut/model.safetensors
check cut
cp -r "$DATA/models/mini-v4" missing && rm missing/model-00002-of-00002.safetensors
check missing
cp -r "$DATA/models/mini-llama3" foreign && sed -i 's/LlamaForCausalLM/LlammaForCausalLM/; s/"model_type": *"llama"/"model_type": "llamma"/' foreign/config.json
check foreign
"$QUERN" convert "$DATA/models/mini-v3" -o out --type lossless
echo "exit $?" >&2
[ -e out ] && ls -A out
exit 0
