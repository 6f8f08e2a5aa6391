# fit and drift --simulate: the recipe that is found makes exactly the file it was found for; mistakes are refused with the way out.
model=$DATA/models/mini-qwen3moe
for i in $(seq 80); do printf 'The miller, %d years old, ground what the farmers brought him.\n' "$i"; done >text.txt
export XDG_CACHE_HOME=$PWD/cache
fit() { "$QUERN" fit "$model" --calib-text text.txt --ctx 64 --chunks 2 --check-chunks 2 --rounds 0 "$@"; }

fit --size 1000 -o small.json 2>&1 | grep -o 'no choice of types fits 1000 bytes'
smallest=$(fit --size 1000 -o small.json 2>&1 | grep -o 'smallest that works is [0-9]*' | grep -o '[0-9]*')
size=$((smallest * 3 / 2))
fit --size "$size" -o best.json >first.txt 2>/dev/null
echo "fit: exit $?"
fit --size "$size" -o more.json 2>&1 >second.txt | grep -c 'sensitivities from'
sed -i s/more/best/ second.txt
cmp first.txt second.txt && cmp best.json more.json && echo 'the same from kept sensitivities'
for file in cache/quern/*.json; do echo '{' >"$file"; done
fit --size "$size" -o best.json --force 2>&1 >/dev/null | grep -c 'measuring again'
fit --size "$size" -o best.json 2>&1 | grep -c 'exists; --force'

"$QUERN" convert "$model" -o out --recipe best.json >/dev/null 2>&1
built=$(stat -c %s out/*.gguf)
[[ $built -le $((size - 4096)) ]] && grep -q " $built " first.txt && echo 'the file has the size that was promised'
"$QUERN" drift "$model" out/*.gguf --simulate best.json --eval-text text.txt --ctx 64 --chunks 2 2>/dev/null |
  awk '/gguf|fit-|mix/ && /\+-/ { $1 = $2 = $3 = ""; print }' | sort -u | wc -l
fit --size 1MB -o x.json --probes 0
echo "exit $?" >&2
