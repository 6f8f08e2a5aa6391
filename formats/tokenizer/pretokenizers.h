#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// How byte-level BPE tokenizers cut text into words before merging: regular expressions applied one after the other, each to the
// pieces that the ones before it left (every match becomes a piece, and so does every stretch between matches).
//
// GGUF stores only a name for them (tokenizer.ggml.pre), tokenizer.json the expressions. This table is the one place that knows
// both: the import looks up the name, the runtime the expressions.
// Sources: the tokenizer.json files of the families; names as ggml-org/llama.cpp src/llama-vocab.cpp accepts them.
struct PreTokenizer {
  std::string_view name;                           // "llama-bpe"
  std::vector<std::string_view> aliases;           // other names that engines treat the same
  std::vector<std::string_view> expressions;       // in tokenizer.json's dialect (Oniguruma), which PCRE2 with UCP understands
  enum class IgnoreMerges { kNo, kYes, kEither };  // a word that is a token is taken whole, whatever its merges give
  IgnoreMerges ignore_merges = IgnoreMerges::kEither;
  bool adds_bos = false;  // what engines do for files without tokenizer.ggml.add_bos_token
  bool nfc = false;       // text is normalised to Unicode NFC first; GGUF has no key for it
};

std::span<const PreTokenizer> all_pre_tokenizers();

// The row of this name or alias; nullptr when there is none.
const PreTokenizer* find_pre_tokenizer(std::string_view name) noexcept;

// The row of the expressions of a tokenizer.json and its `ignore_merges`; nullptr when none has exactly these. Control characters may be
// spelled as themselves or as escapes.
const PreTokenizer* find_pre_tokenizer(std::span<const std::string> expressions, bool ignore_merges);

// What "use_regex" of a ByteLevel step stands for (GPT-2's expression).
inline constexpr std::string_view kByteLevelExpression = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace quern
