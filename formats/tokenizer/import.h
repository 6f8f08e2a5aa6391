#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/model_folder.h"
#include "formats/gguf/metadata.h"

namespace quern {

// What the tokenizer's GGUF keys need from config.json and from the user.
struct TokenizerInputs {
  int64_t vocab_size = 0;           // rows of the token embedding; token lists are padded to it with [PADn] UNUSED
  std::string_view gguf_arch = {};  // "deepseek4"; two families share their expressions and differ in the name that public files use
  std::optional<int64_t> bos_token_id = std::nullopt;  // scalar ids of config.json; lists (several EOS ids) count as absent
  std::optional<int64_t> eos_token_id = std::nullopt;
  std::optional<int64_t> pad_token_id = std::nullopt;
  std::optional<int64_t> unk_token_id = std::nullopt;
  std::optional<std::filesystem::path> chat_template = std::nullopt;  // --chat-template FILE; goes before what the folder has
};

// Appends the tokenizer.* keys of a checkpoint folder to `metadata`, and to `notes` what was assumed or is missing (one line each).
//
// Read: tokenizer.json (byte-level BPE), else tokenizer.model (SentencePiece BPE), else tokenizer.json (Metaspace BPE with byte
// fallback), with added_tokens.json, tokenizer_config.json and the files of chat_template.h. Folders that have only tiktoken.model or
// tekken.json are refused by name.
// Keys and values are those that ggml-org/llama.cpp's converter writes (conversion/base.py, gguf-py/gguf/vocab.py), except that
// tokenizer.ggml.pre follows from the regular expressions in the file (pretokenizers.h) instead of a hash over sample text; add_bos_token
// follows transformers where that converter reads a flag that transformers ignores. Errors: kFormat for damaged or contradictory files (ids
// out of range or used twice, merges of unknown tokens), kUnsupported naming the expression or component for tokenizers that no known
// runtime could reproduce, kIo for unreadable files.
void set_tokenizer_metadata(const ModelFolder& folder, const TokenizerInputs& inputs, Metadata& metadata, std::vector<std::string>& notes);

}  // namespace quern
