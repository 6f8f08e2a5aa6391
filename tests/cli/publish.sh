# From a checkpoint to a signed folder, checked by sha256sum, openssl and verify; then damaged, edited, compared and examined.
model=$DATA/models/mini-qwen3moe
cat > key.pem <<'PEM'
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7
-----END PRIVATE KEY-----
PEM
openssl pkey -in key.pem -pubout -out key.pub.pem
publish() { "$QUERN" publish "$model" -o "$1" --type Q4_K_M --type Q8_0 --split-size 1M --sign key.pem --base-model org/Model --revision 1234 "${@:2}"; }

publish repo --dry-run
publish repo --license Apache-2.0; echo "exit $?"
"$QUERN" publish "$model" -o repo --type Q8_0 --base-model https://huggingface.co/org/Model; echo "exit $?"
publish repo || exit
(cd repo && sha256sum --quiet -c SHA256SUMS && echo "sums agree") || exit
"$QUERN" verify repo --key key.pub.pem --source "$model" --all || exit
grep -rlE "$PWD|$DATA|$HOME/|/tmp/" repo && echo "a path leaks"
sed -n '1,/^---$/p' repo/README.md && sed -n '2,/^---$/p' repo/README.md | head -4

sed 's/.*"payload":"\([^"]*\)".*/\1/' repo/attestation.intoto.jsonl | base64 -d > statement.json
sed 's/.*"sig":"\([^"]*\)".*/\1/' repo/attestation.intoto.jsonl | base64 -d > signature.bin
printf 'DSSEv1 28 application/vnd.in-toto+json %d ' "$(stat -c %s statement.json)" | cat - statement.json > signed.bin
openssl pkeyutl -verify -pubin -inkey key.pub.pem -rawin -in signed.bin -sigfile signature.bin

echo "--- interrupted before the model card, then continued: the same bytes"
mkdir -p again/README.md
publish again >/dev/null; echo "exit $?"
rmdir again/README.md
publish again >/dev/null
diff -r repo again && echo "same bytes"
publish again; echo "exit $?"

echo "--- damage"
first=$(echo repo/Q4_K_M/*-00001-of-*.gguf)
printf '\377' | dd of="${first/-00001-/-00002-}" bs=1 seek=100000 conv=notrunc status=none
"$QUERN" verify repo; echo "exit $?"
"$QUERN" verify repo --json | grep -E '"(kind|intact)"'
"$QUERN" verify "${first%/*}/nothing.gguf"; echo "exit $?"

echo "--- edit, diff, doctor"
echo "{{ messages }} {{ ''.__class__ }}" > template.jinja
cp "$first" before.gguf
"$QUERN" edit "$first" --template template.jinja --set general.name=Edited; echo "exit $?"
"$QUERN" edit "$first" --template template.jinja --set general.name=Edited --force
"$QUERN" diff "$first" again/Q4_K_M/*-00001-of-*.gguf; echo "exit $?"
"$QUERN" doctor "$first"; echo "exit $?"
"$QUERN" edit "$first" --set split.count=4; echo "exit $?"
"$QUERN" doctor "$model"
