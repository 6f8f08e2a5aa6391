# Verdicts: a build without a record, a template that the publisher gave or planted, and a download that is none.
model=$DATA/models/mini-qwen3moe
echo "Be nice. {{ messages }}" > given.jinja
publish() { "$QUERN" publish "$model" -o "$1" --type Q8_0 --base-model org/Model "${@:2}" >/dev/null 2>&1 || exit; }
verdict() { "$QUERN" verify "$@" --seed 1 | grep -E '^(note|unproved|damage|intact|not)'; echo "exit ${PIPESTATUS[0]}"; }

publish repo
publish given --chat-template given.jinja
verdict repo --source "$model"
echo "--- the publisher's template is in the manifest, and is not the checkpoint's"
verdict given
verdict given --source "$model"
echo "--- or it is not in the manifest"
"$QUERN" convert "$model" -o planted --type Q8_0 --chat-template given.jinja >/dev/null 2>&1
verdict planted --source "$model"

echo "--- alone"
mkdir -p a/b/c && cp repo/*.gguf a/b/c/alone.gguf
verdict a/b/c/alone.gguf
"$QUERN" verify a/b/c/alone.gguf --json | grep -E '"(verdict|intact)": *[^"u]*' | cut -c1-60 | head -2
echo "--- a pointer in its place"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2394000\n' > "$(echo repo/*.gguf)"
verdict repo
