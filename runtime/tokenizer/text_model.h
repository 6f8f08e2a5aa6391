#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer/vocabulary.h"

namespace quern {

// The token list of a GGUF file.
struct TokenTable {
  std::vector<std::string> tokens;
  std::vector<TokenType> types;  // as many as tokens
  std::vector<float> scores;     // as many as tokens, or none

  TokenType type(size_t id) const { return types[id]; }
};

// One way to turn text without special tokens into ids. Implementations refer to the TokenTable they were made from.
class TextModel {
 public:
  virtual ~TextModel() = default;

  // Appends the ids of `text`, which is valid UTF-8. `after_special`: it begins the input or follows a special token.
  virtual void encode(std::string_view text, bool after_special, std::vector<int32_t>& ids) const = 0;

  // Appends the bytes that an ordinary token stands for.
  virtual void append_bytes(int32_t id, std::string& out) const = 0;

  // encode() puts a space in front of text that begins the input.
  virtual bool puts_space_in_front() const noexcept = 0;
};

}  // namespace quern
