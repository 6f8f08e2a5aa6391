# Reports: from the JSON of drift with the lists of tensors, two compared, and what is refused.
"$QUERN" report --help
model=$DATA/models/mini-v4
for i in $(seq 60); do printf 'The miller, %d years old, ground what the farmers brought him.\n' "$i"; done >text.txt
"$QUERN" convert "$model" -o out --type lossless --type Q4_0 --name Mini >/dev/null 2>&1
"$QUERN" drift "$model" out/*.gguf --eval-text text.txt --ctx 64 --chunks 2 --json >drift.json 2>/dev/null
"$QUERN" report drift.json --tensors out/*.tensors.json -o one.html
"$QUERN" report drift.json --tensors out/*.tensors.json -o two.html 2>/dev/null
cmp one.html two.html && echo "the same bytes twice"
grep -oE '<h[12]>[^<]*' one.html
"$QUERN" report drift.json drift.json -o compared.html
grep -oE '<p class="lead">[^<]*' compared.html
grep -cE '<script|https://' one.html compared.html

"$QUERN" report drift.json -o one.html
echo "exit $?"
"$QUERN" report drift.json -o one.html --force
"$QUERN" report drift.json drift.json drift.json -o three.html
echo "exit $?"
echo '{"schema": "quern.plan/1"}' >plan.json
"$QUERN" report plan.json -o plan.html
echo "exit $?"
head -c 1000 drift.json >cut.json
"$QUERN" report cut.json -o cut.html
echo "exit $?"
"$QUERN" report drift.json --tensors drift.json -o mixed.html
echo "exit $?"
ls *.html
