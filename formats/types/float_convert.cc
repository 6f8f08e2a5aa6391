#include "formats/types/float_convert.h"

#include <limits>

namespace quern {

float e8m0_to_f32(uint8_t bits) noexcept {
  if (bits == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(bits == 0 ? 0x00400000u : static_cast<uint32_t>(bits) << 23);
}

float ue4m3_to_f32_half(uint8_t bits) noexcept {
  if (bits == 0 || bits == 0x7F) return 0.0f;
  return e4m3_magnitude(bits & 0x7Fu) * 0.5f;
}

}  // namespace quern
