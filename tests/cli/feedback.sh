# Error feedback from a text and from a folder give the same file; what goes wrong is said in one line.
for i in {1..40}; do echo "Line $i: the quick brown fox jumps over the lazy dog, and nobody knows why it does so again and again."; done > text
"$QUERN" statistics "$DATA/models/mini-llama3" --calib-text text --calib-tokens 2048 -o stats 2>&1 | grep -v '^quern: read' || exit
ls stats | head -3
"$QUERN" convert "$DATA/models/mini-llama3" -o folder --type Q4_0 --statistics stats 2>/dev/null || exit
"$QUERN" convert "$DATA/models/mini-llama3" -o live --type Q4_0 --feedback on --calib-text text --calib-tokens 2048 2>/dev/null || exit
"$QUERN" convert "$DATA/models/mini-llama3" -o sequential --memory 2GiB --type Q4_0 --feedback sequential --calib-text text --calib-tokens 2048 || exit
"$QUERN" diff folder/*.gguf live/*.gguf
# Several types in sequence give the files that each alone gives.
"$QUERN" convert "$DATA/models/mini-llama3" -o several --type Q8_0 --type Q4_0 --feedback sequential --calib-text text --calib-tokens 2048 2>/dev/null || exit
cmp several/*Q4_0.gguf sequential/*Q4_0.gguf && echo the same
# What was measured without writing a file is the file, to the last digit.
"$QUERN" drift "$DATA/models/mini-llama3" folder/*.gguf --simulate Q4_0 --statistics stats --eval-text text --ctx 256 --chunks 2 --json 2>/dev/null |
  grep -A1 '"kl": {' | grep mean | sort | uniq -c | sed 's/[0-9.e-]*,$//'
for key in mode text tokens; do "$QUERN" inspect sequential/*.gguf | grep "feedback.$key "; done
"$QUERN" publish "$DATA/models/mini-qwen3moe" -o repo --type Q4_0 --feedback sequential --calib-text text --calib-tokens 2048 2>/dev/null | grep -v '\.gguf' || exit
grep -A3 "error feedback" repo/README.md; grep "quern verify" repo/README.md
verify() {
  "$QUERN" verify repo --source "$DATA/models/mini-qwen3moe" --all --seed 1 "$@" | grep -E '^(source|unproved|damage)' | cut -c1-150
  echo "exit ${PIPESTATUS[0]}"
}
verify --calib-text text
verify
verify --statistics stats
check() {
  "$QUERN" convert "$DATA/models/mini-llama3" -o out --memory 2GiB "$@"
  echo "exit $?" >&2
}
check --type Q4_0 --feedback on
check --type Q4_0 --feedback maybe --calib-text text
check --type Q4_0 --feedback sequential --statistics stats
check --type Q4_0 --feedback on --calib-text text --plan-out plan.json
"$QUERN" convert "$DATA/models/mini-v4" -o out --type Q4_0 --statistics stats
echo "exit $?" >&2
