#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "formats/base/bytes.h"
#include "formats/float_convert.h"

namespace quern {

// The weights of one block as the searches see them: scaled by a power of two so that the largest magnitude lies in [1, 2), and
// importance divided by its maximum. Products and squares then neither overflow nor vanish, whatever the model holds, and because the
// scaling is exact, rounding happens exactly where it happens in the decoder.
template <int n>
struct BlockWeights {
  alignas(64) float x[n];
  alignas(64) float w[n];  // in (0, 1]
  float unit;              // a normalised 1 is this much in the file: 2^exponent
  bool vanishes;           // below the smallest magnitude that the type can hold: the block is stored as zero
};

// Importance below this fraction of the block's largest counts as this much. It keeps every weight in the game (codes of channels
// that calibration never saw stay sensible, a sub-block without any importance counts uniformly) and moves errors by less than 1e-6.
inline constexpr float kImportanceFloor = 0x1p-20f;

inline float usable_importance(float h) noexcept {
  return h > 0.0f ? std::min(h, std::numeric_limits<float>::max()) : 0.0f;  // NaN and negative count as none
}

// With a binary16 scale nothing below this survives, whatever the codes.
inline constexpr float kSmallestForF16 = 0x1p-60f;

// What the weights of a block are multiplied with.
struct Magnitude {
  float down;
  float unit;  // 1 / down
  bool vanishes;
};

// 2^exponent for -127 to 127.
constexpr float power_of_two(int exponent) noexcept {
  return std::bit_cast<float>(exponent > -127 ? static_cast<uint32_t>(exponent + 127) << 23 : 0x00400000u);
}

inline Magnitude magnitude_of(float largest, float smallest) noexcept {
  const bool vanishes = largest < smallest;
  const int exponent = vanishes ? 0 : static_cast<int>(std::bit_cast<uint32_t>(largest) >> 23) - 127;
  return {power_of_two(-exponent), power_of_two(exponent), vanishes};
}

// importance: n weights or nullptr.
template <int n>
void normalise_importance(const float* importance, float* w) noexcept {
  float heaviest = 0.0f;
  if (importance != nullptr) {
    for (int i = 0; i < n; ++i) heaviest = std::max(heaviest, usable_importance(importance[i]));
  }
  for (int i = 0; i < n; ++i) {
    w[i] = heaviest > 0.0f ? std::max(usable_importance(importance[i]) / heaviest, kImportanceFloor) : 1.0f;
  }
}

// x: n finite weights; importance: n weights or nullptr.
template <int n>
BlockWeights<n> normalised(const float* x, const float* importance, float smallest = kSmallestForF16) noexcept {
  BlockWeights<n> block;
  float largest = 0.0f;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  const Magnitude magnitude = magnitude_of(largest, smallest);
  for (int i = 0; i < n; ++i) block.x[i] = x[i] * magnitude.down;
  block.unit = magnitude.unit;
  block.vanishes = magnitude.vanishes;
  normalise_importance<n>(importance, block.w);
  return block;
}

// Encodes a row block by block with encode(const BlockWeights<n>&, Block&); blocks start out as zero bytes.
template <int n, typename Block, typename Encode>
void for_each_block(const float* x, const float* importance, int64_t n_cols, std::byte* out, Encode encode,
                    float smallest = kSmallestForF16) {
  for (int64_t i = 0; i < n_cols; i += n, out += sizeof(Block)) {
    Block block{};
    encode(normalised<n>(x + i, importance == nullptr ? nullptr : importance + i, smallest), block);
    store_le(out, block);
  }
}

// Stored bits of a normalised scale that already is a binary16 value in the file.
inline uint16_t stored_scale(float scale, float unit) noexcept { return f32_to_f16(scale * unit); }

}  // namespace quern
