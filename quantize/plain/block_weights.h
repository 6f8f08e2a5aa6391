#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "formats/base/bytes.h"
#include "formats/types/float_convert.h"

namespace quern {

// Searches see the weights of a block scaled by a power of two so that the largest magnitude lies in [1, 2), and importance divided by its
// maximum. Products and squares then neither overflow nor vanish, whatever the model holds, and because the scaling is exact, rounding
// happens exactly where it happens in the decoder.

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

// Stored bits of a normalised scale that already is a binary16 value in the file.
inline uint16_t stored_scale(float scale, float unit) noexcept { return f32_to_f16(scale * unit); }

}  // namespace quern
