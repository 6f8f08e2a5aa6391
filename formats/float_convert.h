#pragma once

#include <bit>
#include <cstdint>

namespace quern {

// Scalar conversions that define the meaning of stored bits. Pure integer arithmetic on the bit patterns, so every CPU agrees.

float f16_to_f32(uint16_t bits) noexcept;
uint16_t f32_to_f16(float value) noexcept;  // round to nearest even, overflow to infinity, NaN to 0x7E00 with its sign

inline float bf16_to_f32(uint16_t bits) noexcept { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
uint16_t f32_to_bf16(float value) noexcept;  // round to nearest even; NaN keeps its top 16 bits with bit 6 forced on

float e4m3_to_f32(uint8_t bits) noexcept;  // e4m3fn: no infinities, 0x7F and 0xFF are NaN
float e5m2_to_f32(uint8_t bits) noexcept;  // IEEE-like
float e8m0_to_f32(uint8_t bits) noexcept;  // 2^(bits - 127); 0 is the subnormal 2^-127, 255 is NaN
float e8m0_to_f32_half(uint8_t bits) noexcept;  // 2^(bits - 128): MXFP4's scale for its doubled code values; 255 as ggml decodes it

}  // namespace quern
