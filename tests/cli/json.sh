# The report as JSON.
"$QUERN" convert "$DATA/models/mini-qwen2" -o out --type Q8_0 --json --name Tiny >report.json || exit
sed -E 's/("sha256": )"[0-9a-f]{64}"/\1"H"/' report.json
