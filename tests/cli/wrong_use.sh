# What people type by mistake: one line each that says what to do instead, and no file.
# A line of the table is a command, run in a fresh folder with these files; $M is a checkpoint, $G a file made from it.
mkdir made
"$QUERN" convert "$DATA/models/mini-llama3" -o made --type BF16 2>/dev/null >&2
"$QUERN" convert "$DATA/models/mini-llama3" -o made --type Q4_0 2>/dev/null >&2
for i in {1..60}; do echo "The $i horses of the mill ground $((i * 7)) sacks of corn."; done >text.txt
printf 'good text, then \xff\xfe\n' >latin.txt
: >empty.txt
echo short >short.txt
echo '{' >cut.json
"$QUERN" imatrix "$DATA/models/mini-llama3" --calib-text text.txt --format dat -o i.dat 2>/dev/null >&2
ln -s absent/missing dangling
export M="$DATA/models/mini-llama3" G=$(echo made/*BF16.gguf) Q=$(echo made/*Q4_0.gguf)
before=$(find . | sort)
# --- the mistakes
while IFS= read -r line; do
  [[ -n "$line" && "$line" != \#* ]] || continue
  echo "\$ quern $line" >&2
  eval "\"\$QUERN\" $line" >/dev/null
  echo "exit $?" >&2
done <<'END'
# sizes
convert $M -o out --type Q8_0 --memory '4 GiBs'
convert $M -o out --type Q8_0 --memory 1e9
convert $M -o out --type Q8_0 --split-size 45gigs
convert $M -o out --type Q8_0 --split-size -1
convert $M -o out --type Q8_0 --memory 1MiB
plan $M --type Q8_0 --machine-memory 0x10 --bandwidth 100GB/s
plan $M --type Q8_0 --machine-memory 10GB --bandwidth 0GB/s
drift $M $G --eval-text text.txt --memory lots
# types, names, numbers
convert $M -o out --type Q4KM
convert $M -o out --type ''
convert $M -o out --type Q8_0 --type q8_0
convert $M -o out --type Q8_0 --effort beste
convert $M -o out --type Q8_0 --threads many
convert $M -o out --type Q8_0 --treads 2
convert $M -o out --type Q8_0 extra
convert $M -o out --recipe text.txt
convert $M -o out --type Q8_0 --imatrix text.txt
quantise $G -o out.gguf --type Q8_0
imatrix $M --calib-text text.txt -o out.gguf --format json
drift $M $G --eval-text text.txt --ctx two
# places
convert $M -o out --type Q8_0 --tensors nothing
convert $M -o /proc/out --type Q8_0
convert $M -o text.txt/out --type Q8_0
convert $M -o text.txt --type Q8_0
convert $M -o dangling/out --type Q8_0
convert $M -o made --type BF16
convert $M -o $M/out --type Q8_0
convert $M -o '' --type Q8_0
quantize $G -o $G --type Q8_0 --force
quantize $G -o out --type Q8_0
quantize $G out.gguf Q8_0
run $G "Once upon a time"
convert $M -o out --type
quantize $G -o made --type Q8_0
imatrix $M --calib-text text.txt -o text.txt/i.gguf
imatrix $M --calib-text text.txt -o made
statistics $M --calib-text text.txt -o text.txt
# one thing where another is meant
quantize $M -o out.gguf --type Q8_0
quantize text.txt -o out.gguf --type Q8_0
convert $Q -o out --type Q4_K_M --dry-run
convert made -o out --type Q8_0
convert $M/config.json -o out --type Q8_0
convert text.txt -o out --type Q8_0
verify $M
publish $M -o made --type Q8_0
merge text.txt text.txt -o out
merge cut.json cut.json -o out
convert --plan cut.json --part 1/2
drift $G $G --eval-text text.txt
drift $M $Q $M/../mini-llama3 --eval-text text.txt
drift $M $DATA/models/mini-mixtral --eval-text text.txt
drift $M absent.gguf --eval-text text.txt
drift $Q $G --eval-text short.txt
imatrix --merge i.dat ./i.dat -o sum.gguf
drift $M --eval-text text.txt
report $G
diff $G
edit $G
edit text.txt --set a=b
fit $G --size 1MB --calib-text text.txt -o made
# texts
drift $M $G --eval-text latin.txt
drift $M $G --eval-text empty.txt
drift $M $G --eval-text short.txt
drift $M $G --eval-text absent.txt
drift $M $G --eval-text .
drift $M $G --eval-text text.txt --chunks 0
drift $M $G --eval-text text.txt --ctx 3
drift $M $G --eval-text text.txt --ctx 1000000
perplexity $G --eval-text empty.txt
perplexity $G --eval-text text.txt --chunks -1
imatrix $M --calib-text latin.txt -o out.gguf
imatrix $M --calib-text empty.txt -o out.gguf
imatrix $M --calib-text text.txt --chunks 0 -o out.gguf
statistics $M --calib-text empty.txt -o out
statistics $M --calib-text text.txt --calib-tokens 0 -o out
run $G --prompt $'\xff'
tokenize $G --text latin.txt
END
# --- no mistake left anything
diff <(echo "$before") <(find . | sort)
