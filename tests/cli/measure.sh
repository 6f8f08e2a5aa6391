# Perplexity, drift and run: what is refused, and what the gates answer. Figures themselves are tested under tests/verify.
model=$DATA/models/mini-v4
for i in $(seq 60); do printf 'The miller, %d years old, ground what the farmers brought him.\n' "$i"; done >text.txt
"$QUERN" convert "$model" -o out --type lossless --type Q4_0 --name Mini >/dev/null 2>&1
lossless=$(ls out/*lossless*.gguf) rounded=$(ls out/*Q4_0.gguf)

"$QUERN" perplexity "$model" --eval-text text.txt --ctx 100000
echo "exit $?"
"$QUERN" perplexity "$model" --eval-text absent.txt
echo "exit $?"
"$QUERN" drift "$model" "$DATA/models/mini-mixtral" --eval-text text.txt --ctx 64 --chunks 1 2>&1 | grep error
"$QUERN" drift "$model" "$lossless" --eval-text text.txt --ctx 64 --chunks 2 --max-kl 0 >/dev/null 2>&1
echo "lossless within a KL of 0: exit $?"
"$QUERN" drift "$model" "$rounded" --eval-text text.txt --ctx 64 --chunks 2 --max-kl 0 >/dev/null 2>&1
echo "Q4_0 within a KL of 0: exit $?"
"$QUERN" drift "$model" --save-reference original.h5 --eval-text text.txt --ctx 64 --chunks 2 >/dev/null 2>&1
echo "saved: exit $?"
"$QUERN" drift "$lossless" --reference original.h5 --max-kl 0.001 >/dev/null 2>&1
echo "lossless against the saved reference: exit $?"
"$QUERN" drift "$rounded" --reference "$lossless" 2>&1 | grep error
one=$("$QUERN" run "$model" --prompt 'The miller' -n 4 --temp 0 --threads 1 2>/dev/null)
two=$("$QUERN" run "$lossless" --prompt 'The miller' -n 4 --temp 0 --threads 2 2>/dev/null)
[[ -n "$one" && "$one" == "$two" ]] && echo "checkpoint and lossless build continue alike"

echo "--- what is printed"
measure() { "$QUERN" drift "$model" "$rounded" --eval-text text.txt --ctx 64 --chunks 2 "$@" 2>/dev/null; }
measure | grep -oE '(mean KL|same top).*' | tr -s ' '
measure --wide | grep -oE '(mean KL|tokens with other).*' | tr -s ' '
measure --dry-run --json | grep -oE '"(schema|dry_run|model|memory_bytes)": ("quern[^"]*"|true|)' 
"$QUERN" imatrix "$model" --calib-text text.txt --ctx 64 -o i.gguf --dry-run --json 2>/dev/null | grep -oE '"(schema|dry_run)": .*'
"$QUERN" statistics "$model" --calib-text text.txt --ctx 64 -o s --dry-run --json 2>/dev/null | grep -oE '"(schema|dry_run)": .*'
