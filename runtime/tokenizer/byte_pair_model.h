#pragma once

#include <array>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "formats/tokenizer/pretokenizers.h"
#include "runtime/tokenizer/text_model.h"
#include "runtime/tokenizer/word_splitter.h"

namespace quern {

// Byte-level BPE: text is cut into words, a word begins as one token per byte, and as long as two neighbours are a merge, the pair of
// lowest rank is joined, the leftmost of equals. A heap of candidate pairs makes a word of n bytes O(n log n), so that a
// megabyte without a blank takes a second and not a day.
// Source: Sennrich et al. 2016 (arXiv:1508.07909); order of merges as in huggingface/tokenizers models/bpe/word.rs.
class BytePairModel final : public TextModel {
 public:
  // merges: "left right", by rank; a merge of texts that are no tokens can never apply and is passed over.
  BytePairModel(const TokenTable& table, const std::vector<std::string>& merges, const PreTokenizer& pre);

  void encode(std::string_view text, bool after_special, std::vector<int32_t>& ids) const override;
  void append_bytes(int32_t id, std::string& out) const override;
  bool puts_space_in_front() const noexcept override { return false; }

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t id = 0;
  };
  struct Scratch;

  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;
  const Merge* find_merge(int32_t left, int32_t right) const;

  const TokenTable& table_;
  WordSplitter splitter_;
  std::array<int32_t, 256> byte_ids_{};             // -1: the vocabulary has no such token
  std::unordered_map<uint64_t, Merge> merges_;      // by left id << 32 | right id
  std::unordered_map<std::string, int32_t> words_;  // bytes -> id; only for pre-tokenizers that take whole words
};

}  // namespace quern
