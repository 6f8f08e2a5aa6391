# A recipe of one's own, the same file from the recipe that it holds.
cat > five.json <<'JSON'
{"schema": "quern.recipe/1", "name": "five", "rules": [
  {"role": "embedding", "type": "F16", "note": "small"}, {"part": ["v", "down"], "layers": ["50%-100%"], "type": "Q8_0"}, {"type": "Q5_0"}]}
JSON
"$QUERN" convert "$DATA/models/mini-llama3" -o first --recipe five.json --tensor-type 'ffn_up=Q4_0' 2>/dev/null || exit
"$QUERN" convert "$DATA/models/mini-llama3" -o second --recipe first/*-five.gguf 2>/dev/null || exit
cmp first/*.gguf second/*.gguf && echo "the same bytes"
check() {
  "$QUERN" convert "$DATA/models/mini-llama3" -o third --recipe "$1" --dry-run
  echo "exit $?" >&2
}
echo '{"schema": "quern.recipe/1", "name": "five", "rules": [{"type": "Q5_0"}, {"rol": "output", "type": "Q8_0"}]}' > typo.json
check typo.json
echo '{"schema": "quern.recipe/1", "name": "five", "rules": [{"role": "output", "type": "Q8_0"}]}' > rest.json
check rest.json
