# Edits are reported when they are done, and refused when doctor would find more in the file than before.
"$QUERN" convert "$DATA/models/mini-llama3" -o out --type BF16 --name Mini >/dev/null 2>&1
"$QUERN" convert "$DATA/models/mini-llama3" -o split --type Q8_0 --split-size 600KB --name Mini >/dev/null 2>&1
file=$(ls out/*.gguf)
edit() { "$QUERN" edit "$@"; echo "exit $?"; }

edit "$file" --set tokenizer.ggml.eos_token_id=99999
edit "$file" --set tokenizer.ggml.eos_token_id:str=two
edit "$file" --set llama.block_count=99 --dry-run
edit "$file" --remove tokenizer.ggml.eos_token_id
edit "$file" --set qwen2.context_length:u32=64 --dry-run
"$QUERN" doctor "$file" | grep -v chat_template; echo "exit ${PIPESTATUS[0]}"
edit "$file" --remove general.architecture --force
edit split/*-00003-of-*.gguf --set general.name=Other --force

echo "--- nothing is said of a copy that could not be written"
(trap '' XFSZ; ulimit -f 300; "$QUERN" edit "$file" -o copy.gguf --set general.name=Other 2>/dev/null; echo "exit $?")
ls copy.gguf 2>/dev/null
edit "$file" -o copy.gguf --set general.name=Other --json

echo "--- a key that is not there is a note"
edit "$file" --remove general.url --set general.name=Third
