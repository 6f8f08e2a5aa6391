# A plan in three parts, made one after the other and merged, gives the bytes of one run.
"$QUERN" convert "$DATA/models/mini-mixtral" -o whole --type Q4_K_M --type BF16 >/dev/null 2>&1 || exit
"$QUERN" convert "$DATA/models/mini-mixtral" -o parts --type Q4_K_M --type BF16 --plan-out plan.json || exit
for part in 1 2 3; do "$QUERN" convert --plan plan.json --part $part/3 || exit; done
"$QUERN" merge plan.json -o merged parts/*.json || exit
diff -r whole merged && echo same
