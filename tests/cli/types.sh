# What is known: a line each, and in the errors about what is not.
"$QUERN" types | awk 'length($0) > 80 { print "line too long: " $0 } /^ / { ++n } END { print (n > 45 ? "types, recipes, machines" : n) }'
"$QUERN" types | grep -E '^  (Q4_K_M|lossless|dynamic-2bit|rtx4090-ram64) '
"$QUERN" types --json | grep -cE '"(name|id)": "(IQ2_XXS|dynamic-4bit|mac-m3-ultra-512)"'
for mistake in "--type mxfp4" "--type Q4" "--recipe dynamic-2bits" "--machine mac"; do
  "$QUERN" plan "$DATA/models/mini-llama3" $mistake; echo "exit $?"
done
