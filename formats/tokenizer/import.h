#pragma once

#include <string>
#include <vector>

#include "formats/base/model_folder.h"
#include "formats/gguf/metadata.h"
#include "formats/tokenizer/tokenizer_inputs.h"

namespace quern {

// Appends the tokenizer.* keys of a checkpoint folder to `metadata`, and to `notes` what was assumed or is missing (one line each).
//
// Read: tokenizer.json (byte-level BPE), else tokenizer.model (SentencePiece BPE), else tokenizer.json (Metaspace BPE with byte
// fallback), else vocab.json with merges.txt (byte-level BPE of a class that is known), with added_tokens.json, tokenizer_config.json,
// special_tokens_map.json and the files of chat_template.h. Vocabularies in other forms are refused by name.
// Keys and values are those that ggml-org/llama.cpp's converter writes (conversion/base.py, gguf-py/gguf/vocab.py), except that
// tokenizer.ggml.pre follows from the regular expressions in the file (pretokenizers.h) instead of a hash over sample text; add_bos_token
// follows transformers where that converter reads a flag that transformers ignores, and end tokens beyond the first, which that converter
// drops, become eot_token_id and eom_token_id unless engines know them by their text. What llama.cpp would assume for a key that is left
// out is not left to it: it is written, or a note says what it assumes. Errors: kFormat for damaged or contradictory files (ids
// out of range or used twice, merges of unknown tokens), kUnsupported naming the expression or component for tokenizers that no known
// runtime could reproduce, kIo for unreadable files.
void set_tokenizer_metadata(const ModelFolder& folder, const TokenizerInputs& inputs, Metadata& metadata, std::vector<std::string>& notes);

}  // namespace quern
