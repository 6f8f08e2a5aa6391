# A stored tensor without a use stops a conversion until it is left out by name; whoever derives the files again leaves out the same.
cp -r "$DATA/models/mini-llama3" model && chmod -R u+w model && mv model/model.safetensors model/model-00001-of-00002.safetensors
header='{"v_head.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
{ printf '%b' "\\x$(printf %x ${#header})\\0\\0\\0\\0\\0\\0\\0"; printf '%s\0\0\0\0' "$header"; } >model/model-00002-of-00002.safetensors
convert() { "$QUERN" convert model -o out --type Q8_0 "$@" 2>&1 | grep -E 'quern: (note|error)'; }
convert
convert --skip norm
convert --skip v_hat
convert --skip v_head
"$QUERN" inspect out/*.gguf | grep -o 'quern.skip.*'
"$QUERN" verify out --source model | grep -o '22 chunks .* derived again'
"$QUERN" convert model -o again --type Q8_0 --skip v_head --plan-out plan.json 2>&1 | grep 'quern: error'
"$QUERN" convert --plan plan.json 2>&1 | grep 'quern: error'
cmp out/*.gguf again/*.gguf && echo same
"$QUERN" plan model --type Q8_0 --skip v_head 2>&1 | grep -c skip
