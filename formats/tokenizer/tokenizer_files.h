#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/model_folder.h"
#include "formats/tokenizer/sentencepiece.h"
#include "formats/tokenizer/tokenizer_json.h"

namespace quern {

// Everything that a folder says about its tokenizer, parsed.
struct TokenizerFiles {
  std::optional<TokenizerJson> json;  // also a vocab.json with its merges.txt
  std::optional<SentencePieceModel> sentencepiece;
  TokenizerConfig config;         // special tokens of special_tokens_map.json included
  std::vector<AddedToken> added;  // added_tokens.json
  std::string vocabulary_file;    // name of the one that the tokens come from

  bool byte_level() const { return !sentencepiece && json->kind == TokenizerJson::Kind::kByteLevel; }
};

// Whether the folder has a tokenizer in a form that can be read.
bool has_tokenizer(const ModelFolder& folder);

// Which files, in which order: import.h. gguf_arch stands in for a tokenizer class that no file names.
TokenizerFiles read_tokenizer_files(const ModelFolder& folder, std::string_view gguf_arch, std::vector<std::string>& notes);

}  // namespace quern
