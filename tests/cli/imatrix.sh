# Collecting, merging and showing importance matrices, and what is refused.
model=$DATA/models/mini-qwen3moe
for i in $(seq 60); do printf 'The miller, %d years old, ground what the farmers brought him.\n' "$i"; done >text.txt
"$QUERN" imatrix "$model" --calib-text text.txt --ctx 64 --chunks 8 -o one.gguf 2>&1 | sed -E 's/(memory|in) [0-9.]+ [kM]B/\1 M/g; s/, [0-9.]+ s$/, T/'
"$QUERN" imatrix "$model" --calib-text text.txt --ctx 64 --chunks 8 -o two.gguf --threads 1 >/dev/null 2>&1
cmp one.gguf two.gguf && echo "the same bytes on any number of threads"
"$QUERN" imatrix "$model" --calib-text text.txt --ctx 64 -o one.gguf
echo "exit $?"
"$QUERN" imatrix --merge one.gguf two.gguf -o three.dat --format dat
echo "exit $?"
"$QUERN" imatrix --show three.dat
"$QUERN" imatrix "$model" --show one.gguf --strict --json >shown.json 2>/dev/null
echo "strict: exit $?"
grep -c '"name": "blk' shown.json
"$QUERN" imatrix "$DATA/models/mini-v4" --show one.gguf 2>&1 >/dev/null | cut -c 1-80
"$QUERN" imatrix --show text.txt
echo "exit $?"
"$QUERN" imatrix "$model" -o four.gguf
echo "exit $?"
"$QUERN" imatrix --show one.gguf --merge one.gguf
echo "exit $?"
"$QUERN" convert "$model" -o out --type Q4_0 --imatrix one.gguf --strict 2>&1 | cut -c 1-80
"$QUERN" convert "$model" -o out --type Q4_0 --imatrix one.gguf --dry-run 2>&1 | grep -E '^quern: (warning|note)' | cut -c 1-80
"$QUERN" convert "$model" -o out --type Q4_0 --imatrix absent.gguf
echo "exit $?"
ls
