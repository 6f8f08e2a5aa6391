# The main job: one read, several files, sums that sha256sum accepts.
"$QUERN" convert "$DATA/models/mini-llama3" -o out --type Q4_K_M --type Q8_0 --type lossless || exit
ls -A out
(cd out && sha256sum --quiet -c SHA256SUMS) || exit
"$QUERN" convert "$DATA/models/mini-llama3" -o out --type Q8_0
echo "exit $?" >&2
"$QUERN" convert "$DATA/models/mini-llama3" -o out --type Q8_0 --force
