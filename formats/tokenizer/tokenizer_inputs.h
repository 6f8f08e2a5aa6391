#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

namespace quern {

// What the tokenizer's GGUF keys need from config.json and from the user.
struct TokenizerInputs {
  int64_t vocab_size = 0;           // rows of the token embedding; token lists are padded to it with [PADn] UNUSED
  std::string_view gguf_arch = {};  // "deepseek4"; two families share their expressions and differ in the name that public files use
  // Ids of config.json, else of generation_config.json; of a list the first.
  std::optional<int64_t> bos_token_id = std::nullopt;
  std::optional<int64_t> eos_token_id = std::nullopt;
  std::optional<int64_t> pad_token_id = std::nullopt;
  std::optional<int64_t> unk_token_id = std::nullopt;
  std::vector<int64_t> end_ids = {};                                  // every id that ends a text according to either file
  std::optional<std::filesystem::path> chat_template = std::nullopt;  // --chat-template FILE; goes before what the folder has
};

}  // namespace quern
