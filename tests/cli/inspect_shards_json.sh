"$QUERN" inspect "$DATA/models/mini-v4" --json
