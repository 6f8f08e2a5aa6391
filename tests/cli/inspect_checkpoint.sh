"$QUERN" inspect "$DATA/models/mini-llama3" --tensors
