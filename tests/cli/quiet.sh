# --quiet leaves results, warnings and errors.
model=$DATA/models/mini-llama3
"$QUERN" convert "$model" -o out --type Q8_0 --quiet >table || exit
grep -c gguf table
"$QUERN" -q convert "$model" -o out --type Q8_0; echo "exit $?"
"$QUERN" keygen -q -o key.pem | sed -E 's/[0-9a-f]{64}/ID/'
"$QUERN" keygen -o key.pem; echo "exit $?"
"$QUERN" keygen -o other.pem --json 2>/dev/null | sed -E 's/[0-9a-f]{64}/ID/'
