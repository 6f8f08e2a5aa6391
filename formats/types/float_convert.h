#pragma once

#include <bit>
#include <cstdint>

namespace quern {

// Scalar conversions that define the meaning of stored bits. Exact or correctly rounded (nearest, ties to even) on bit patterns,
// so every CPU agrees; no table and no branch that keeps the compiler from vectorising a loop over them.
// Sources: IEEE 754 binary16; ggml-org/ggml src/ggml-impl.h for NaN handling; OCP 8-bit floating point and MX specifications.

inline float f16_to_f32(uint16_t bits) noexcept {
  const uint32_t magnitude = bits & 0x7FFFu;
  const uint32_t moved = magnitude << 13;  // mantissa in place, exponent 112 too small
  // Subnormals: with the exponent of 2^-14 forced on, the value is too large by exactly 2^-14.
  const float subnormal = std::bit_cast<float>(moved + (113u << 23)) - 0x1p-14f;
  const uint32_t normal = moved + ((magnitude >= 0x7C00u ? 224u : 112u) << 23);
  const uint32_t value = magnitude < 0x0400u ? std::bit_cast<uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(value | (static_cast<uint32_t>(bits & 0x8000u) << 16));
}

// Overflow to infinity, NaN to 0x7E00 with its sign.
inline uint16_t f32_to_f16(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Subnormals: in [0.5, 1) a unit of the last place is 2^-24, f16's smallest step, so the addition rounds for us.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - (112u << 23) + 0x0FFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
  const uint32_t result = magnitude < 0x38800000u ? subnormal : (magnitude < 0x47800000u ? normal : special);
  return static_cast<uint16_t>(result | ((bits >> 16) & 0x8000u));
}

inline float bf16_to_f32(uint16_t bits) noexcept { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// NaN keeps its top 16 bits with bit 6 forced on.
inline uint16_t f32_to_bf16(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? (bits >> 16) | 0x40u : rounded);
}

// Exponent and mantissa bits of a finite e4m3 code: (1 + m/8) * 2^(e-7), or m * 2^-9 when e is 0.
inline float e4m3_magnitude(uint32_t code) noexcept {
  return code < 8 ? static_cast<float>(static_cast<int32_t>(code)) * 0x1p-9f : std::bit_cast<float>((code << 20) + (120u << 23));
}

// e4m3fn: no infinities, 0x7F and 0xFF are NaN. The others are the upper bits of a f16, 2^8 times too small.
inline float e4m3_to_f32(uint8_t bits) noexcept {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  const float value = f16_to_f32(static_cast<uint16_t>((bits & 0x7Fu) << 7)) * 0x1p8f;
  return std::bit_cast<float>(((bits & 0x7Fu) == 0x7Fu ? 0x7FC00000u : std::bit_cast<uint32_t>(value)) | sign);
}

inline float e5m2_to_f32(uint8_t bits) noexcept { return f16_to_f32(static_cast<uint16_t>(bits << 8)); }  // f16's upper byte

float e8m0_to_f32(uint8_t bits) noexcept;  // 2^(bits - 127); 0 is the subnormal 2^-127, 255 is NaN

// 2^(bits - 128): MXFP4's scale for its doubled code values; 255 as ggml decodes it, 2^127.
inline float e8m0_to_f32_half(uint8_t bits) noexcept { return std::bit_cast<float>(bits < 2 ? 0x00200000u << bits : (bits - 1u) << 23); }

// NVFP4's scale: e4m3 without a sign (bit 7 is ignored), halved for the same reason. 0x00, 0x7F decode to 0 as ggml has it.
float ue4m3_to_f32_half(uint8_t bits) noexcept;

}  // namespace quern
