#pragma once

#include <cstdint>

#include "formats/types/dtype.h"

namespace quern {

// Stored blocks, byte for byte as in a GGUF file. d, dmin and m are binary16 bits. Within a block:
//   split halves   byte t of a 16-byte group holds element t in its low nibble and element t + 16 in its high nibble
//   bit planes     bits of 32 consecutive elements lie in 32 consecutive bytes; the next 32 elements use the next bits of these bytes
//   group          8 consecutive elements; quad: 4 consecutive elements
// T* and V* below are tables of codebooks.h. Products associate to the left as written: bit equality with ggml depends on it.
// Source: ggml-org/ggml src/ggml-common.h (structs) and src/ggml-quants.c (dequantize_row_*).

// y = (q - 8) * d
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];  // split halves
};

// y = q * d + m
struct BlockQ4_1 {
  uint16_t d, m;
  uint8_t qs[16];  // split halves
};

// y = (q - 16) * d, q = nibble | bit e of qh << 4
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];   // little-endian u32, bit e belongs to element e
  uint8_t qs[16];  // split halves
};

// y = q * d + m, q as in Q5_0
struct BlockQ5_1 {
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};

// y = q * d
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};

// y = bit ? d : -d
struct BlockQ1_0 {
  uint16_t d;
  uint8_t qs[16];  // element e is bit e % 8 of byte e / 8
};

// y = (q - 1) * d
struct BlockQ2_0 {
  uint16_t d;
  uint8_t qs[16];  // element e is bits 2 * (e % 4) .. + 1 of byte e / 4
};

// y = kFp4[q] * 2^(e - 128)
struct BlockMXFP4 {
  uint8_t e;       // E8M0; 255 is NaN and never written
  uint8_t qs[16];  // split halves
};

// y = kFp4[q] * ue4m3_half(s[b]), b = e / 16
struct BlockNVFP4 {
  uint8_t s[4];
  uint8_t qs[32];  // sub-block b in bytes 8b..8b+7: byte t holds elements 16b + t (low nibble) and 16b + 8 + t (high)
};

// y = (d * (scales[b] & 15)) * q - (dmin * (scales[b] >> 4)), b = e / 16
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];  // 2-bit planes: element 128h + 32k + t is bits 2k .. 2k+1 of byte 32h + t
  uint16_t d, dmin;
};

// y = (d * (S[b] - 32)) * (q - 4), q = qs | hmask << 2, b = e / 16
struct BlockQ3_K {
  uint8_t hmask[32];   // 1-bit planes: element 32k + t is bit k of byte t
  uint8_t qs[64];      // 2-bit planes as in Q2_K
  uint8_t scales[12];  // S: 16 x 6 bits. Low nibbles of S[b] (b < 8) and S[b + 8] share byte b; bits 4-5 of S[b] are bits
                       // 2 * (b / 4) .. + 1 of byte 8 + b % 4
  uint16_t d;
};

// y = (d * S[b]) * q - (dmin * M[b]), b = e / 32
//   byte     0..3                    4..7                    8..11
//   bits 0-5 S[0..3]                 M[0..3]                 low nibbles: S[4..7] in bits 0-3, M[4..7] in bits 4-7
//   bits 6-7 bits 4-5 of S[4..7]     bits 4-5 of M[4..7]
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];  // byte 32j + t: element 64j + t (low nibble) and 64j + 32 + t (high nibble)
};

// As Q4_K with q = nibble | qh << 4
struct BlockQ5_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];  // 1-bit planes
  uint8_t qs[128];
};

// y = (d * scales[b]) * (q - 32), b = e / 16
struct BlockQ6_K {
  uint8_t ql[128];  // half h: byte 64h + t holds elements 128h + t (low) and 128h + 64 + t (high) for t < 64
  uint8_t qh[64];   // bits 4-5, 2-bit planes as in Q2_K
  int8_t scales[16];
  uint16_t d;
};

// y = (d * (0.5 + l) * 0.25) * G[i][j] * sign; sub-block b of 32 elements = qs[4b..4b+3], 8 bytes:
// four index bytes, then a u32 with the 7-bit sign code of group k in bits 7k..7k+6 and l in bits 28..31
struct BlockIQ2_XXS {
  uint16_t d;
  uint16_t qs[32];
};

// y as IQ2_XXS; qs[g] of group g: bits 0..8 index, 9..15 sign code
struct BlockIQ2_XS {
  uint16_t d;
  uint16_t qs[32];
  uint8_t scales[8];  // l of 16 elements per nibble, low nibble first
};

// y as IQ2_XXS, all 8 signs stored
struct BlockIQ2_S {
  uint16_t d;
  uint8_t qs[32];     // index bits 0..7 per group
  uint8_t signs[32];  // per group
  uint8_t qh[8];      // bits 2k..2k+1 of byte b: index bits 8..9 of group 4b + k
  uint8_t scales[8];  // as IQ2_XS
};

// y = (d * (0.5 + l) * 0.5) * G[i][j] * sign
struct BlockIQ3_XXS {
  uint16_t d;
  uint8_t qs[64];   // index per quad
  uint8_t gas[32];  // u32 per 32 elements: sign codes of 4 groups in bits 0..27, l in bits 28..31
};

// y = (d * (1 + 2l)) * G[i][j] * sign
struct BlockIQ3_S {
  uint16_t d;
  uint8_t qs[64];     // index bits 0..7 per quad
  uint8_t qh[8];      // bit k of byte b: index bit 8 of quad 8b + k
  uint8_t signs[32];  // per group
  uint8_t scales[4];  // l of 32 elements per nibble, low nibble first
};

// y = (d * (2l + 1)) * (G[i][j] + delta), delta = -1/8 if bit 15 of qh else 1/8
struct BlockIQ1_S {
  uint16_t d;
  uint8_t qs[32];  // index bits 0..7 per group
  uint16_t qh[8];  // per 32 elements: bits 3k..3k+2 index bits 8..10 of group k, bits 12..14 l
};

// y = (d * (2l + 1)) * (G[i][j] + delta)
struct BlockIQ1_M {
  uint8_t qs[32];      // index bits 0..7 per group
  uint8_t qh[16];      // nibble per group, low first: bits 0-2 index bits 8..10, bit 3 set: delta = -1/8
  uint16_t scales[4];  // bits 3m..3m+2 of word w: l of the 16 elements 4w + m; bits 12..15 of word w: nibble w of d
};

// y = d * kIq4nl[q]
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];  // split halves
};

// y = (d * (L[b] - 32)) * kIq4nl[q], b = e / 32
struct BlockIQ4_XS {
  uint16_t d;
  uint16_t scales_h;    // bits 2b..2b+1: bits 4-5 of L[b]
  uint8_t scales_l[4];  // bits 0-3 of L[b] per nibble, low first
  uint8_t qs[128];      // split halves per sub-block of 32
};

// y = digit * d. Each byte is an 8-bit fixed-point fraction of a base-3 number: digit n is ((byte * 3^n mod 256) * 3 >> 8) - 1
struct BlockTQ1_0 {
  uint8_t qs[48];  // bytes 0..31: digit n (0..4) of byte t is element 32n + t; bytes 32..47: digit n of byte 32 + t is 160 + 16n + t
  uint8_t qh[4];   // digit n (0..3) of byte t is element 240 + 4n + t
  uint16_t d;
};

// y = (q - 1) * d
struct BlockTQ2_0 {
  uint8_t qs[64];  // 2-bit planes as in Q2_K
  uint16_t d;
};
// clang-format off
// The types above, once: X(name).
#define QUERN_BLOCK_TYPES(X)                                                                                                              \
  X(Q4_0)                                                                                                                                 \
  X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q1_0) X(Q2_0) X(MXFP4) X(NVFP4) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) \
      X(IQ3_XXS) X(IQ3_S) X(IQ1_S) X(IQ1_M) X(IQ4_NL) X(IQ4_XS) X(TQ1_0) X(TQ2_0)
// clang-format on
// Block struct of a type and weights in it. BlockOf<DType::Q4_K>::type, BlockOf<...>::kWeights.
template <DType dtype>
struct BlockOf;
template <typename Block>
inline constexpr int kBlockWeights = 0;

namespace detail {
// One row of the dtype table as compile-time values.
template <DType dtype>
struct DTypeRow;
#define QUERN_DTYPE_ROW_CONSTANTS(name, id, weights, bytes) \
  template <>                                               \
  struct DTypeRow<DType::name> {                            \
    static constexpr int kWeights = weights;                \
    static constexpr int kBytes = bytes;                    \
  };
QUERN_DTYPES(QUERN_DTYPE_ROW_CONSTANTS)
#undef QUERN_DTYPE_ROW_CONSTANTS
}  // namespace detail

#define QUERN_BLOCK_TRAITS(name)                                               \
  static_assert(sizeof(Block##name) == detail::DTypeRow<DType::name>::kBytes); \
  template <>                                                                  \
  struct BlockOf<DType::name> {                                                \
    using type = Block##name;                                                  \
  };                                                                           \
  template <>                                                                  \
  inline constexpr int kBlockWeights<Block##name> = detail::DTypeRow<DType::name>::kWeights;
QUERN_BLOCK_TYPES(QUERN_BLOCK_TRAITS)
#undef QUERN_BLOCK_TRAITS

// The super scale of IQ1_M, binary16 bits gathered from its four nibbles.
uint16_t scale_bits(const BlockIQ1_M& block) noexcept;

// Packed 6-bit fields of Q4_K and Q5_K (8 scales, 8 mins) and of Q3_K (16 scales, still with their offset of 32).
void unpack_scales_q4_k(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]) noexcept;
void pack_scales_q4_k(const uint8_t scales[8], const uint8_t mins[8], uint8_t packed[12]) noexcept;
void unpack_scales_q3_k(const uint8_t packed[12], uint8_t scales[16]) noexcept;
void pack_scales_q3_k(const uint8_t scales[16], uint8_t packed[12]) noexcept;

}  // namespace quern
