#pragma once

#include <cstdint>
#include <cstring>

#include "formats/base/bytes.h"
#include "formats/types/blocks.h"
#include "quantize/plain/pack.h"

namespace quern {

// Whole blocks from their parts, shared by the plain encoders and those with error feedback. Blocks are zero before.

inline void pack_block(uint16_t d, uint16_t dmin, const int scales[16], const int mins[16], const uint8_t codes[256],
                       BlockQ2_K& block) noexcept {
  block.d = d;
  block.dmin = dmin;
  for (int b = 0; b < 16; ++b) block.scales[b] = static_cast<uint8_t>(scales[b] | mins[b] << 4);
  store_2bit_planes(codes, 0, block.qs);
}

// Q4_K, and Q5_K without its high bits.
template <typename Block>
void pack_affine_32(uint16_t d, uint16_t dmin, const int scales[8], const int mins[8], const uint8_t codes[256], Block& block) noexcept {
  block.d = d;
  block.dmin = dmin;
  uint8_t small_scales[8];
  uint8_t small_mins[8];
  for (int b = 0; b < 8; ++b) {
    small_scales[b] = static_cast<uint8_t>(scales[b]);
    small_mins[b] = static_cast<uint8_t>(mins[b]);
  }
  pack_scales_q4_k(small_scales, small_mins, block.scales);
  store_nibble_halves<64>(codes, block.qs);
}

inline void pack_block(uint16_t d, uint16_t dmin, const int scales[8], const int mins[8], const uint8_t codes[256],
                       BlockQ4_K& block) noexcept {
  pack_affine_32(d, dmin, scales, mins, codes, block);
}

inline void pack_block(uint16_t d, uint16_t dmin, const int scales[8], const int mins[8], const uint8_t codes[256],
                       BlockQ5_K& block) noexcept {
  pack_affine_32(d, dmin, scales, mins, codes, block);
  store_1bit_planes(codes, 4, block.qh);
}

// l: -32..31
inline void pack_block(uint16_t d, const int l[16], const uint8_t codes[256], BlockQ3_K& block) noexcept {
  block.d = d;
  uint8_t scales[16];
  for (int b = 0; b < 16; ++b) scales[b] = static_cast<uint8_t>(l[b] + 32);
  pack_scales_q3_k(scales, block.scales);
  store_2bit_planes(codes, 0, block.qs);
  store_1bit_planes(codes, 2, block.hmask);
}

// l: -128..127
inline void pack_block(uint16_t d, const int l[16], const uint8_t codes[256], BlockQ6_K& block) noexcept {
  block.d = d;
  for (int b = 0; b < 16; ++b) block.scales[b] = static_cast<int8_t>(l[b]);
  store_nibble_halves<128>(codes, block.ql);
  store_2bit_planes(codes, 4, block.qh);
}

// l: -32..31
inline void pack_block(uint16_t d, const int l[8], const uint8_t codes[256], BlockIQ4_XS& block) noexcept {
  block.d = d;
  for (int b = 0; b < 8; ++b) {
    const int stored = l[b] + 32;
    block.scales_l[b / 2] |= static_cast<uint8_t>((stored & 15) << (4 * (b % 2)));
    block.scales_h |= static_cast<uint16_t>((stored >> 4) << (2 * b));
  }
  store_nibble_halves<32>(codes, block.qs);
}

// Digits n = 0.. of a byte are the codes at first, first + stride, ...; five digits as a fraction of 3^5, rounded up so that the
// decoder's multiplications find them again.
inline uint8_t pack_trits(const uint8_t* first, int stride, int n_digits) noexcept {
  int value = 0;
  for (int n = 0; n < 5; ++n) value = value * 3 + (n < n_digits ? first[n * stride] : 0);
  return static_cast<uint8_t>((value * 256 + 242) / 243);
}

// Codes 0, 1, 2.
inline void pack_block(uint16_t d, const uint8_t codes[256], BlockTQ1_0& block) noexcept {
  block.d = d;
  for (int t = 0; t < 32; ++t) block.qs[t] = pack_trits(codes + t, 32, 5);
  for (int t = 0; t < 16; ++t) block.qs[32 + t] = pack_trits(codes + 160 + t, 16, 5);
  for (int t = 0; t < 4; ++t) block.qh[t] = pack_trits(codes + 240 + t, 4, 4);
}

inline void pack_block(uint16_t d, const uint8_t codes[256], BlockTQ2_0& block) noexcept {
  block.d = d;
  store_2bit_planes(codes, 0, block.qs);
}

// Codes 0..3 of the levels -2, -1, 0, 1 under d, which are the codes 3..0 of the type under -d.
inline void pack_block(uint16_t d, const uint8_t codes[64], BlockQ2_0& block) noexcept {
  block.d = d ^ 0x8000;
  for (int e = 0; e < 64; ++e) block.qs[e / 4] |= static_cast<uint8_t>((3 - codes[e]) << (2 * (e % 4)));
}

// What blocks with a code book hold, apart from d: per unit of 4 or 8 weights a row of the book (and for IQ1 which of its two books),
// per 8 weights their signs (bit set: negative), per sub-block the integer scale.
struct LatticeCodes {
  int index[64] = {};
  int book[32] = {};
  uint8_t signs[32] = {};
  int l[16] = {};
};

inline void pack_nibble_scales(const int* l, int n, uint8_t* scales) noexcept {
  for (int b = 0; b < n; ++b) scales[b] = static_cast<uint8_t>(l[2 * b] | l[2 * b + 1] << 4);
}

inline void pack_block(uint16_t d, const LatticeCodes& codes, BlockIQ2_XXS& block) noexcept {
  block.d = d;
  for (int b = 0; b < 8; ++b) {
    uint32_t indices = 0;
    uint32_t signs = static_cast<uint32_t>(codes.l[b]) << 28;
    for (int k = 0; k < 4; ++k) {
      indices |= static_cast<uint32_t>(codes.index[4 * b + k]) << (8 * k);
      signs |= (codes.signs[4 * b + k] & 127u) << (7 * k);
    }
    store_le(block.qs + 4 * b, indices);
    store_le(block.qs + 4 * b + 2, signs);
  }
}

inline void pack_block(uint16_t d, const LatticeCodes& codes, BlockIQ2_XS& block) noexcept {
  block.d = d;
  for (int g = 0; g < 32; ++g) {
    block.qs[g] = static_cast<uint16_t>(static_cast<uint32_t>(codes.index[g]) | (codes.signs[g] & 127u) << 9);
  }
  pack_nibble_scales(codes.l, 8, block.scales);
}

inline void pack_block(uint16_t d, const LatticeCodes& codes, BlockIQ2_S& block) noexcept {
  block.d = d;
  for (int g = 0; g < 32; ++g) {
    block.qs[g] = static_cast<uint8_t>(codes.index[g] & 255);
    block.qh[g / 4] |= static_cast<uint8_t>((codes.index[g] >> 8) << (2 * (g % 4)));
  }
  std::memcpy(block.signs, codes.signs, sizeof block.signs);
  pack_nibble_scales(codes.l, 8, block.scales);
}

inline void pack_block(uint16_t d, const LatticeCodes& codes, BlockIQ3_XXS& block) noexcept {
  block.d = d;
  for (int u = 0; u < 64; ++u) block.qs[u] = static_cast<uint8_t>(codes.index[u]);
  for (int b = 0; b < 8; ++b) {
    uint32_t gas = static_cast<uint32_t>(codes.l[b]) << 28;
    for (int k = 0; k < 4; ++k) gas |= (codes.signs[4 * b + k] & 127u) << (7 * k);
    store_le(block.gas + 4 * b, gas);
  }
}

inline void pack_block(uint16_t d, const LatticeCodes& codes, BlockIQ3_S& block) noexcept {
  block.d = d;
  for (int u = 0; u < 64; ++u) {
    block.qs[u] = static_cast<uint8_t>(codes.index[u] & 255);
    block.qh[u / 8] |= static_cast<uint8_t>((codes.index[u] >> 8) << (u % 8));
  }
  std::memcpy(block.signs, codes.signs, sizeof block.signs);
  pack_nibble_scales(codes.l, 4, block.scales);
}

inline void pack_block(uint16_t d, const LatticeCodes& codes, BlockIQ1_S& block) noexcept {
  block.d = d;
  for (int b = 0; b < 8; ++b) {
    int qh = codes.l[b] << 12 | codes.book[4 * b] << 15;
    for (int k = 0; k < 4; ++k) {
      const int index = codes.index[4 * b + k];
      block.qs[4 * b + k] = static_cast<uint8_t>(index & 255);
      qh |= (index >> 8) << (3 * k);
    }
    block.qh[b] = static_cast<uint16_t>(qh);
  }
}

inline void pack_block(uint16_t d, const LatticeCodes& codes, BlockIQ1_M& block) noexcept {
  for (int u = 0; u < 32; ++u) {
    block.qs[u] = static_cast<uint8_t>(codes.index[u] & 255);
    block.qh[u / 2] |= static_cast<uint8_t>((codes.index[u] >> 8 | codes.book[u] << 3) << (4 * (u % 2)));
  }
  for (int word = 0; word < 4; ++word) {
    uint32_t bits = (static_cast<uint32_t>(d) >> (4 * word) & 15) << 12;
    for (int m = 0; m < 4; ++m) bits |= static_cast<uint32_t>(codes.l[4 * word + m]) << (3 * m);
    block.scales[word] = static_cast<uint16_t>(bits);
  }
}

}  // namespace quern
