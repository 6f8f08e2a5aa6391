# Help and version go to stdout. Every text fits a screen of 24 lines of 80 characters with the prompt, in groups with names that fit.
"$QUERN" --version
"$QUERN" --help
for verb in convert quantize merge; do
  echo "--- $verb"
  "$QUERN" $verb --help
done
verbs=$("$QUERN" --help | sed -nE '3,$ { /^Options/! s/^.{9}([a-z]+) .*/\1/p }')
for verb in "" $verbs; do
  "$QUERN" $verb --help | awk -v verb="$verb" '
    length($0) > 80 { print verb ": line too long: " $0 }
    NR > 2 && !/^Example: / && (substr($0, 9, 1) != " " || !/^([A-Z]|         )/) { print verb ": a group that does not fit: " $0 }
    END { if (NR > 23) print verb ": " NR " lines" }'
  "$QUERN" $verb --help-all | awk -v verb="$verb" 'length($0) > 80 { print verb ": line too long: " $0 }'
done

echo "--- other ways to ask"
"$QUERN" help merge | diff - <("$QUERN" merge --help) && "$QUERN" help | diff - <("$QUERN" -h) && "$QUERN" -v | diff - <("$QUERN" --version) && echo same
"$QUERN" merge --help-all
for verb in $verbs; do "$QUERN" $verb --help-all; done | grep -c . | awk '{ print ($1 > 250 ? "all options" : "some are missing") }'
"$QUERN" --help-all | diff - <("$QUERN" --help; for verb in $verbs; do echo; "$QUERN" $verb --help-all; done) && echo "the same of all verbs"
"$QUERN" dsplan --help; echo "exit $?"
"$QUERN" help plam; echo "exit $?"
"$QUERN" 2>&1 | diff - <("$QUERN" --help) && "$QUERN" 2>/dev/null; echo "exit $?"
"$QUERN" --help >/dev/full; echo "exit $?"
