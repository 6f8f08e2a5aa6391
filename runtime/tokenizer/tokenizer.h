#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/metadata.h"
#include "runtime/tokenizer/special_matcher.h"
#include "runtime/tokenizer/text_model.h"

namespace quern {

// Text to token ids and back, from the tokenizer.* keys of a GGUF file alone. Ids are those of the Hugging Face tokenizer that the
// file was made from. Immutable after construction and thread-safe.
//
// Two kinds (tokenizer.ggml.model): "gpt2", byte-level BPE with the expressions of tokenizer.ggml.pre (byte_pair_model.h), and "llama",
// SentencePiece BPE (piece_model.h). Special tokens are cut out of the text first: leftmost, and there the longest.
class Tokenizer {
 public:
  // Throws kFormat for missing or contradictory keys and kUnsupported for kinds and pre-tokenizers that we do not know.
  explicit Tokenizer(const Metadata& metadata);
  Tokenizer(Tokenizer&&) = delete;  // model_ refers to vocabulary_

  // `add_special`: BOS and EOS are put around the text if the file says so. `parse_special`: control tokens spelled out in the text
  // become their ids; otherwise they are ordinary text. User-defined tokens are always recognised.
  // Throws kFormat with the offset when the text is not UTF-8, and when the vocabulary cannot spell it.
  std::vector<int32_t> encode(std::string_view text, bool add_special, bool parse_special) const;

  // The bytes that the ids stand for, special tokens spelled out; without the space that the tokenizer itself put in front.
  // Throws kFormat for ids outside the vocabulary.
  std::string decode(std::span<const int32_t> ids) const;

  // The bytes of one token. A character may be spread over several tokens.
  std::string piece(int32_t id) const;

  int64_t vocab_size() const noexcept { return static_cast<int64_t>(vocabulary_.tokens.size()); }
  std::optional<int32_t> bos_id() const noexcept { return bos_id_; }
  std::optional<int32_t> eos_id() const noexcept { return eos_id_; }
  // Whether encode(..., add_special = true) puts BOS in front; then bos_id() is set.
  bool adds_bos() const noexcept { return add_bos_; }
  bool adds_eos() const noexcept { return add_eos_; }

 private:
  void encode_text(std::string_view text, bool after_special, std::vector<int32_t>& ids) const;

  TokenTable vocabulary_;
  std::unique_ptr<const TextModel> model_;
  SpecialMatcher user_tokens_;
  SpecialMatcher special_tokens_;  // user-defined and control tokens
  bool nfc_ = false;
  bool add_bos_ = false;
  bool add_eos_ = false;
  std::optional<int32_t> bos_id_;
  std::optional<int32_t> eos_id_;
};

inline std::unique_ptr<Tokenizer> make_tokenizer(const Metadata& metadata) { return std::make_unique<Tokenizer>(metadata); }

}  // namespace quern
