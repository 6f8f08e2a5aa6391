# A GGUF file written by hand: two keys with text that a terminal must not see raw, one tensor.
{
  printf 'GGUF\3\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0'
  printf '\4\0\0\0\0\0\0\0name\10\0\0\0\10\0\0\0\0\0\0\0a\33[31m\377\n'
  printf '\3\0\0\0\0\0\0\0ids\11\0\0\0\5\0\0\0\7\0\0\0\0\0\0\0'
  printf '\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5\0\0\0\6\0\0\0\377\377\377\377'
  printf '\15\0\0\0\0\0\0\0output.weight\2\0\0\0\40\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\10\0\0\0\0\0\0\0\0\0\0\0'
} >model.gguf
truncate -s %32 model.gguf
truncate -s +96 model.gguf
"$QUERN" inspect model.gguf --tensors
"$QUERN" inspect model.gguf --tensors --json
