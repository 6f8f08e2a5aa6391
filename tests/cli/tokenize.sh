# Tokens of text with a special token, a control character and a character that takes two tokens; then what is refused.
printf 'Hello <|im_start|> w\303\266rld\1\n' >text.txt
"$QUERN" tokenize "$DATA/models/mini-qwen3" --text text.txt
"$QUERN" tokenize "$DATA/models/mini-qwen3" --text text.txt --count
"$QUERN" tokenize "$DATA/models/mini-mixtral" --text text.txt --ids  # adds BOS
"$QUERN" tokenize "$DATA/models/mini-qwen3" --text - --count <text.txt
"$QUERN" tokenize "$DATA/models/mini-qwen3" --text <(cat text.txt) --count
printf 'ab\377' >broken.txt
"$QUERN" tokenize "$DATA/models/mini-qwen3" --text broken.txt
echo "exit $?"
"$QUERN" tokenize "$DATA/models/mini-qwen3" --text text.txt --ids --count
echo "exit $?"
