# One line each, exit code 3 for data and 2 for usage.
model=$DATA/models/mini-v4
show() { "$QUERN" inspect "$@" || echo "exit $?"; }
show absent.gguf
show "$model/config.json"
mkdir empty && show empty
cp -r "$model" cut && truncate -s -1 cut/model-00002-of-00002.safetensors && show cut
cp -r "$model" lost && rm lost/model-00001-of-00002.safetensors && show lost
printf 'GGUF\3\0\0\0\377\377\377\377\377\377\377\177\0\0\0\0\0\0\0\0' >bomb.gguf && show bomb.gguf
printf 'version https://git-lfs.github.com/spec/v1\n' >pointer.gguf && show pointer.gguf
show
