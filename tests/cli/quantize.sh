# A GGUF file as the source, split as well.
"$QUERN" convert "$DATA/models/mini-llama3" -o out --type BF16 --split-size 1MB >/dev/null 2>&1 || exit
"$QUERN" quantize out/*-00001-of-*.gguf -o small.gguf --type Q4_0 || exit
"$QUERN" quantize small.gguf -o smaller.gguf --type Q2_K --tensor-type 'attn=Q4_0' || exit
"$QUERN" quantize small.gguf -o small.gguf --type Q2_K --force
echo "exit $?" >&2
ls
