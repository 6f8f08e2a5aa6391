#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/blocks/rope.h"

namespace quern {

// Compressed keys of DeepSeek-V4: every `ratio` tokens become one entry, a softmax-weighted mean per channel. With overlap (ratio 4)
// a token's projection has two halves: the first joins the entry of the next block, the second that of its own.
// Source: deepseek-ai/DeepSeek-V4-Flash inference/model.py (Compressor).
struct CompressorShape {
  int64_t ratio = 0;
  int64_t width = 0;     // channels of an entry
  bool overlap = false;  // projections are 2 * width wide
  double norm_eps = 0.0;
  int64_t projection_width() const noexcept { return overlap ? 2 * width : width; }
};

// Entries of one sequence, extended as its tokens arrive. Only complete blocks produce entries: entry b covers tokens b * ratio ..
// b * ratio + ratio - 1, is normalised, rotated by the position of its first token and visible to query t iff (b + 1) * ratio <= t + 1.
class Compressor {
 public:
  explicit Compressor(const CompressorShape& shape) : shape_(shape) {}

  // kv, gate: [n_tokens, projection_width]; position_bias: [ratio, projection_width], added to the gate by position in the block;
  // norm: [width]; rope rotates the last n_dims channels.
  void append(std::span<const float> kv, std::span<const float> gate, std::span<const float> position_bias, std::span<const float> norm,
              const RopeParams& rope, std::span<const double> frequencies);

  int64_t n_entries() const noexcept { return n_entries_; }
  const float* entries() const noexcept { return entries_.data(); }  // [n_entries, width]
  int64_t n_visible(int64_t position) const noexcept { return (position + 1) / shape_.ratio; }

 private:
  void pool(int64_t block, float* out) const;

  CompressorShape shape_;
  int64_t n_tokens_ = 0;
  int64_t n_entries_ = 0;
  int64_t first_kept_ = 0;    // token of row 0 below: the start of the block before the incomplete one
  std::vector<float> kv_;     // [tokens kept, projection_width]
  std::vector<float> score_;  // gate + position bias
  std::vector<float> entries_;
};

// The `keep` best of n scores, ties to the lower index: visible[i * 16] = 1 for kept ones, 0 for the others (one lane of a mask).
void keep_best(std::span<const double> scores, int64_t keep, uint8_t* visible);

}  // namespace quern
