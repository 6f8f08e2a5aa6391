# Mistakes on the command line: one line each that says what to do, exit code 2.
check() {
  "$QUERN" "$@"
  echo "exit $?" >&2
}
check
check convrt
check convert --tipe Q8_0
check convert
check convert "$DATA/models/mini-llama3" -o out
check convert "$DATA/models/mini-llama3" -o out --type Q4_K_X --type Q8_0 --tensor-type 'ffn_(up=Q8_0' --memory 20MiB
check convert "$DATA/models/mini-llama3" -o out --type Q8_0 --memory lots
check convert "$DATA/models/mini-llama3" -o out --type Q8_0 --threads 0
check convert "$DATA/models/mini-llama3" -o out --type Q8_0 --part 1/2
check convert "$DATA/models/mini-llama3" -o out --recipe dynamic-2bits
check convert absent -o out --type Q9_0
check quantize "$DATA/models/mini-llama3" -o out.gguf --type Q8_0
check merge plan.json -o out
ls -A
