# Help and version go to stdout; every text fits a screen of 24 lines of 80 characters.
"$QUERN" --version
for verb in convert quantize merge; do
  echo "--- $verb"
  "$QUERN" $verb --help
done
for verb in "" $("$QUERN" --help | sed -nE '3,$ { /^Example/! s/^.{9}([a-z]+) .*/\1/p }'); do
  "$QUERN" $verb --help |
    awk -v verb="$verb" 'length($0) > 80 { print verb ": line too long: " $0 } END { if (NR > 24) print verb ": " NR " lines" }'
done
