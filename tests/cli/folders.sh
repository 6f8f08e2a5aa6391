# A folder of builds, as publish and convert make them, where a model is named; and any shard of a split one.
model=$DATA/models/mini-llama3
for i in {1..200}; do echo "Line $i of a text for two chunks."; done >text
"$QUERN" convert "$model" -o out/Q8_0 --type Q8_0 --split-size 600KB >/dev/null 2>&1
"$QUERN" convert "$model" -o out/Q4_0 --type Q4_0 >/dev/null 2>&1
mkdir empty
third=$(echo out/Q8_0/*-00003-of-*.gguf)
for folder in out out/Q4_0 empty; do
  for verb in "run --prompt a" "perplexity --eval-text text" "drift $model --eval-text text" "diff $model" "plan --type Q8_0" "convert -o o --type Q8_0" "quantize -o o.gguf --type Q8_0"; do
    "$QUERN" $verb $folder >/dev/null; echo "exit $?" >&2
  done
done
echo "--- every build"
"$QUERN" inspect out | grep -E 'GGUF version'
"$QUERN" inspect out --json | grep -cE '"schema"'
"$QUERN" doctor out
"$QUERN" inspect empty; echo "exit $?"
"$QUERN" doctor empty; echo "exit $?"
echo "--- the third shard"
"$QUERN" inspect "$third" | head -1
"$QUERN" doctor "$third"
"$QUERN" run "$third" --prompt a -n 1 2>/dev/null | wc -l
echo "--- cut"
head -c 300000 out/Q4_0/*.gguf >cut.gguf
"$QUERN" doctor cut.gguf | cut -c1-150; echo "exit ${PIPESTATUS[0]}"
