#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace quern {

// Values of tokenizer.ggml.token_type (ggml-org/llama.cpp include/llama.h, enum llama_token_type).
enum class TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// Whether it is the spelling of a byte outside the vocabulary, "<0x0A>".
bool is_byte_token(std::string_view text);

// The token list of a GGUF file while it is put together: every id up to the vocabulary size has a text, padding where the
// tokenizer has none.
class Vocabulary {
 public:
  // vocab_size entries "[PADn]" of type kUnused. Throws kFormat when vocab_size is not in 1 .. 2^22.
  explicit Vocabulary(int64_t vocab_size);

  int64_t size() const noexcept { return static_cast<int64_t>(tokens_.size()); }
  bool has(int64_t id) const noexcept { return id >= 0 && id < size(); }

  // Throws kFormat when the id is outside the vocabulary. Replaces what was there.
  void set(int64_t id, std::string text, float score, TokenType type);

  TokenType type(int64_t id) const { return types_[static_cast<size_t>(id)]; }
  float score(int64_t id) const { return scores_[static_cast<size_t>(id)]; }
  const std::string& text(int64_t id) const { return tokens_[static_cast<size_t>(id)]; }
  // The first id with this text that is not padding, or -1.
  int64_t find(std::string_view text) const;

  std::vector<std::string> take_tokens() { return std::move(tokens_); }
  std::vector<float> take_scores() { return std::move(scores_); }
  std::vector<int32_t> types() const;

 private:
  std::vector<std::string> tokens_;
  std::vector<float> scores_;
  std::vector<TokenType> types_;
};

}  // namespace quern
