#pragma once

#include <filesystem>

#include "formats/base/file.h"
#include "verify/drift/drift.h"

namespace quern {

// The file of llama-perplexity --kl-divergence-base, so that both tools can be compared on the same data. Little-endian, no padding:
//
//   8 bytes "_logits_"; i32 n_ctx, n_vocab, n_chunk; i32 token[n_chunk * n_ctx]       tokens as in the text, BOS not substituted
//   per chunk, per position n_ctx/2 .. n_ctx-2, one row of 2 * ((n_vocab + 1) / 2) + 4 u16:
//     f32 scale, f32 min_log_prob, u16 code[n_vocab]      ln p = scale * code + min_log_prob
//
// With logits z: M = max z, m = max(min z, M - 16), scale = (M - m) / 65535, code = round((z - m) / scale). ik_llama.cpp writes
// M - 24; readers cannot tell and need not. Source: ggml-org/llama.cpp tools/perplexity/perplexity.cpp.

// Writes the original's distributions. text_tokens: the chunks before BOS was put in.
void write_base_file(const std::filesystem::path& path, OriginalModel& original, std::span<const int32_t> text_tokens,
                     OutputFile::Overwrite overwrite);

// One row: logits to n_vocab codes and back.
void encode_base_row(std::span<const float> logits, std::span<std::byte> row);
void decode_base_row(std::span<const std::byte> row, std::vector<double>& log_probs);
// Why a row is no distribution, within what 16-bit codes can say; empty when it is one.
std::string why_no_distribution(std::span<const double> log_probs);

class BaseFile final : public ReferenceDistribution {
 public:
  // bos: put in place of the first token of every chunk, as the tool does when it evaluates. Throws kFormat on a wrong size or magic.
  BaseFile(const std::filesystem::path& path, std::optional<int32_t> bos);

  const std::vector<Sequence>& chunks() const noexcept override { return chunks_; }
  int64_t n_vocab() const noexcept override { return n_vocab_; }
  void begin_rows(int64_t chunk, int64_t first, int64_t n) override;
  TokenDrift compare(int64_t chunk, int64_t t, std::span<const float> tested) const override;
  const std::vector<std::vector<int32_t>>& experts() const noexcept override { return no_experts_; }

 private:
  std::span<const std::byte> row_at(int64_t i) const;  // of those that begin_rows() announced

  InputFile file_;
  int64_t n_ctx_ = 0;
  int64_t n_vocab_ = 0;
  uint64_t data_offset_ = 0;
  uint64_t row_bytes_ = 0;
  std::vector<Sequence> chunks_;
  std::vector<std::vector<int32_t>> no_experts_;
  int64_t first_position_ = 0;
  std::vector<std::byte> rows_;
};

// Whether a file begins with the magic of a base file.
bool is_base_file(const std::filesystem::path& path);

}  // namespace quern
