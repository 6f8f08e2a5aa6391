#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/tokenizer/text_model.h"

namespace quern {

// SentencePiece BPE: the text, its spaces written as U+2581, begins as one symbol per character, and as long as two neighbours make a
// piece, the pair whose piece has the highest score is joined, the leftmost of equals. What is no piece in the end is spelled
// by byte tokens, or is the unknown token. O(n log n) in the length of the text.
// Source: google/sentencepiece src/bpe_model.cc; spaces in front as in ggml-org/llama.cpp src/llama-vocab.cpp.
class PieceModel final : public TextModel {
 public:
  struct Options {
    bool space_in_front = true;        // before text that begins the input or follows a special token
    bool remove_extra_spaces = false;  // at both ends, and all but one of a run
    int32_t unknown_id = 0;
  };

  PieceModel(const TokenTable& table, const Options& options);

  void encode(std::string_view text, bool after_special, std::vector<int32_t>& ids) const override;
  void append_bytes(int32_t id, std::string& out) const override;
  bool puts_space_in_front() const noexcept override { return options_.space_in_front; }

 private:
  struct Merger;

  std::string normalized(std::string_view text, bool after_special) const;
  void append_unknown(std::string_view character, std::vector<int32_t>& ids) const;

  const TokenTable& table_;
  Options options_;
  std::unordered_map<std::string_view, int32_t> pieces_;
  std::array<int32_t, 256> byte_ids_{};  // -1: the vocabulary has no such token
  bool has_bytes_ = false;               // all 256
};

}  // namespace quern
