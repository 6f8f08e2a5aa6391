# A dry run writes nothing; --json leaves only JSON on stdout.
"$QUERN" convert "$DATA/models/mini-v4" -o out --type Q3_K_M --type lossless --dry-run || exit
"$QUERN" convert "$DATA/models/mini-v4" -o out --type Q3_K_M --dry-run --json || exit
ls -A
