# One text and one command: error feedback, the best types for a size, measurement and signature; then one more type for the folder.
model=$DATA/models/mini-qwen3moe
for i in {1..42}; do printf 'The miller, %d years old, ground what the farmers brought him in year %d.\n' "$i" "$((i * 7))"; done >calib.txt
for i in {1..80}; do printf 'Of %d sacks that came up the hill, %d were flour by the evening.\n' "$((i * 3))" "$i"; done >eval.txt
"$QUERN" keygen -o key.pem >/dev/null 2>&1
publish() {
  "$QUERN" publish "$model" -o "$1" --calib-text calib.txt --calib-tokens 1024 --eval-text eval.txt --ctx 64 --chunks 4 --sign key.pem "${@:2}"
}
publish repo --type Q4_0 --size 1800KB --dry-run >plan.txt 2>&1
echo "exit $?"
grep -E '^quern: (first|then)|^fit-' plan.txt | sed -E 's/at most [0-9.]+ [kMG]?B in/at most M in/'
[[ -e repo ]] && echo 'the dry run wrote something'

publish repo --type Q4_0 --size 1800KB >table.txt 2>log.txt || tail -3 log.txt
awk '{ print $1 }' table.txt | grep -v gguf
(cd repo && ls -A | grep -v gguf && sha256sum --quiet -c SHA256SUMS && echo 'sums agree')
[[ $(stat -c %s repo/*fit-1800KB.gguf) -le 1800000 ]] && echo 'the file has at most its size'
grep -o '"kind": "[a-z ]*"' repo/manifest.json | sort | uniq -c
"$QUERN" inspect repo/*Q4_0.gguf | grep -E 'feedback.(mode|text|tokens) '
"$QUERN" verify repo --key key.pub.pem --source "$model" --calib-text calib.txt --all >verified.txt 2>&1
echo "verify: exit $?"

echo '--- again, and with another type'
publish repo --type Q4_0 --size 1800KB 2>&1 | grep -c 'is not made again'
cp -r repo before
publish repo --type Q8_0 --json 2>log.txt | grep -E '"(schema|label)"'
grep -o '[^ ]* stays as it is' log.txt
grep -o 'measuring Q.*' log.txt
cmp before/*Q4_0.gguf repo/*Q4_0.gguf && cmp before/*fit-1800KB.gguf repo/*fit-1800KB.gguf && echo 'the others are what they were'
"$QUERN" verify repo --key key.pub.pem >verified.txt 2>&1
echo "verify: exit $?"
cp -r "$model" other && sed -i 's/"rms_norm_eps": [^,]*/"rms_norm_eps": 0.00001/' other/config.json
printf '\1' | dd of="$(ls other/*.safetensors | head -1)" bs=1 seek=100000 conv=notrunc status=none
"$QUERN" publish other -o repo --type Q8_0 2>&1 | grep -o 'holds builds of another checkpoint.*'

echo '--- what cannot be'
publish out --size 1000 2>&1 | grep -o 'no choice of types fits 1000 bytes'
"$QUERN" publish "$model" -o out --size 3MB 2>&1 | grep -o 'needs a text.*'
"$QUERN" convert "$model" -o out --type Q4_0 --feedback off --calib-text calib.txt
echo "exit $?"
ls out 2>/dev/null

echo '--- declined: importance alone'
publish plain --type Q4_0 --feedback off >/dev/null 2>log.txt || tail -3 log.txt
grep -o '"kind": "[a-z ]*"' plain/manifest.json | sort | uniq -c
"$QUERN" inspect plain/*Q4_0.gguf | grep -E 'feedback|imatrix.file'
"$QUERN" verify plain --source "$model" --all >verified.txt 2>&1
echo "verify: exit $?"
