#pragma once

#include <cstdint>

#include "formats/base/bytes.h"

namespace quern {

// Codes, one byte per weight, into the bit patterns of formats/types/blocks.h. Destinations are zero before.

// Low nibbles of 32 codes in split halves.
inline void store_nibbles(const uint8_t codes[32], uint8_t qs[16]) noexcept {
  for (int t = 0; t < 16; ++t) qs[t] = static_cast<uint8_t>((codes[t] & 15) | (codes[t + 16] << 4));
}

// Bit 4 of 32 codes as a little-endian u32.
inline void store_fifth_bits(const uint8_t codes[32], uint8_t qh[4]) noexcept {
  uint32_t bits = 0;
  for (int e = 0; e < 32; ++e) bits |= static_cast<uint32_t>(codes[e] >> 4) << e;
  store_le(qh, bits);
}

// Bits shift and shift + 1 of 256 codes in 2-bit planes.
inline void store_2bit_planes(const uint8_t codes[256], int shift, uint8_t planes[64]) noexcept {
  for (int h = 0; h < 2; ++h) {
    for (int t = 0; t < 32; ++t) {
      const auto plane = [&](int k) { return ((codes[128 * h + 32 * k + t] >> shift) & 3) << 2 * k; };
      planes[32 * h + t] = static_cast<uint8_t>(plane(0) | plane(1) | plane(2) | plane(3));
    }
  }
}

// Bit `shift` of 256 codes in 1-bit planes.
inline void store_1bit_planes(const uint8_t codes[256], int shift, uint8_t planes[32]) noexcept {
  for (int k = 0; k < 8; ++k) {
    for (int t = 0; t < 32; ++t) planes[t] |= static_cast<uint8_t>(((codes[32 * k + t] >> shift) & 1) << k);
  }
}

// Low nibbles of 256 codes; the two halves of every `span` weights share bytes (64 in Q4_K and Q5_K, 128 in Q6_K, 32 in IQ4_XS).
template <int span>
void store_nibble_halves(const uint8_t codes[256], uint8_t nibbles[128]) noexcept {
  constexpr int half = span / 2;
  for (int first = 0; first < 256; first += span) {
    for (int t = 0; t < half; ++t) {
      nibbles[first / 2 + t] = static_cast<uint8_t>((codes[first + t] & 15) | codes[first + half + t] << 4);
    }
  }
}

}  // namespace quern
