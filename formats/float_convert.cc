#include "formats/float_convert.h"

#include <limits>

namespace quern {
namespace {

// Exponent and mantissa bits of a finite e4m3 code: (1 + m/8) * 2^(e-7), or m * 2^-9 when e is 0.
float e4m3_magnitude(uint32_t code) noexcept {
  return code < 8 ? static_cast<float>(code) * 0x1p-9f : std::bit_cast<float>((code << 20) + (120u << 23));
}

}  // namespace

float e4m3_to_f32(uint8_t bits) noexcept {
  const uint32_t code = bits & 0x7Fu;
  const float magnitude = code == 0x7Fu ? std::numeric_limits<float>::quiet_NaN() : e4m3_magnitude(code);
  return (bits & 0x80u) != 0 ? -magnitude : magnitude;
}

float e8m0_to_f32(uint8_t bits) noexcept {
  if (bits == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(bits == 0 ? 0x00400000u : static_cast<uint32_t>(bits) << 23);
}

float ue4m3_to_f32_half(uint8_t bits) noexcept {
  if (bits == 0 || bits == 0x7F) return 0.0f;
  return e4m3_magnitude(bits & 0x7Fu) * 0.5f;
}

}  // namespace quern
