// Decoders of the types without super-blocks: one scale for 32 to 128 codes, IQ4_XS, which is IQ4_NL with scales in
// super-blocks, and the ternary types. Compiled once per CPU target.

#if defined(QUERN_FORMATS_DECODE_SMALL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_FORMATS_DECODE_SMALL_INL_H_
#undef QUERN_FORMATS_DECODE_SMALL_INL_H_
#else
#define QUERN_FORMATS_DECODE_SMALL_INL_H_
#endif

#include "formats/types/blocks.h"
#include "formats/types/codebooks.h"
#include "formats/types/float_convert.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 16 bytes in split halves; value_of(code, element) gives the weight.
template <typename Value, typename ValueOf>
HWY_INLINE void decode_split_halves(const uint8_t* qs, Value* out, ValueOf value_of) noexcept {
  for (int t = 0; t < 16; ++t) {
    out[t] = value_of(qs[t] & 15, t);
    out[t + 16] = value_of(qs[t] >> 4, t + 16);
  }
}

inline uint32_t high_bits(const uint8_t qh[4]) noexcept {
  return static_cast<uint32_t>(qh[0]) | static_cast<uint32_t>(qh[1]) << 8 | static_cast<uint32_t>(qh[2]) << 16 |
         static_cast<uint32_t>(qh[3]) << 24;
}

inline int fifth_bit(uint32_t qh, int element) noexcept { return static_cast<int>((qh >> element) & 1u) << 4; }

inline void decode_block(const BlockQ4_0& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  decode_split_halves(block.qs, out, [d](int q, int) { return static_cast<float>(q - 8) * d; });
}

inline void decode_block(const BlockQ4_1& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  decode_split_halves(block.qs, out, [d, m](int q, int) { return static_cast<float>(q) * d + m; });
}

inline void decode_block(const BlockQ5_0& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  const uint32_t qh = high_bits(block.qh);
  decode_split_halves(block.qs, out, [d, qh](int q, int e) { return static_cast<float>((q | fifth_bit(qh, e)) - 16) * d; });
}

inline void decode_block(const BlockQ5_1& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  const uint32_t qh = high_bits(block.qh);
  decode_split_halves(block.qs, out, [d, m, qh](int q, int e) { return static_cast<float>(q | fifth_bit(qh, e)) * d + m; });
}

inline void decode_block(const BlockQ8_0& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < 32; ++e) out[e] = static_cast<float>(block.qs[e]) * d;
}

inline void decode_block(const BlockQ1_0& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < 128; ++e) out[e] = ((block.qs[e / 8] >> (e % 8)) & 1) != 0 ? d : -d;
}

inline void decode_block(const BlockQ2_0& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < 64; ++e) out[e] = static_cast<float>(((block.qs[e / 4] >> (2 * (e % 4))) & 3) - 1) * d;
}

// values[q] of 16 bytes in split halves.
HWY_INLINE void look_up_split_halves(const std::array<int8_t, 16>& values, const uint8_t* qs, int8_t out[32]) noexcept {
#if HWY_TARGET == HWY_SCALAR
  decode_split_halves(qs, out, [&](int q, int) { return values[static_cast<size_t>(q)]; });
#else
  const hn::FixedTag<uint8_t, 16> d;
  const auto table = hn::BitCast(d, hn::LoadU(hn::RebindToSigned<decltype(d)>(), values.data()));
  const auto q = hn::LoadU(d, qs);
  hn::StoreU(hn::TableLookupBytes(table, hn::And(q, hn::Set(d, 15))), d, reinterpret_cast<uint8_t*>(out));
  hn::StoreU(hn::TableLookupBytes(table, hn::ShiftRight<4>(q)), d, reinterpret_cast<uint8_t*>(out + 16));
#endif
}

inline void decode_block(const BlockIQ4_NL& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  int8_t values[32];
  look_up_split_halves(kIq4nl, block.qs, values);
  for (int e = 0; e < 32; ++e) out[e] = d * static_cast<float>(values[e]);
}

inline void decode_block(const BlockIQ4_XS& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int b = 0; b < 8; ++b) {
    const int l = ((block.scales_l[b / 2] >> (4 * (b % 2))) & 15) | ((block.scales_h >> (2 * b)) & 3) << 4;
    const float scale = d * static_cast<float>(l - 32);
    int8_t values[32];
    look_up_split_halves(kIq4nl, block.qs + 16 * b, values);
    for (int e = 0; e < 32; ++e) *out++ = scale * static_cast<float>(values[e]);
  }
}

inline void decode_block(const BlockMXFP4& block, float* out) noexcept {
  const float d = e8m0_to_f32_half(block.e);
  int8_t values[32];
  look_up_split_halves(kFp4, block.qs, values);
  for (int e = 0; e < 32; ++e) out[e] = static_cast<float>(values[e]) * d;
}

inline void decode_block(const BlockNVFP4& block, float* out) noexcept {
  for (int b = 0; b < 4; ++b) {
    const float d = ue4m3_to_f32_half(block.s[b]);
    for (int t = 0; t < 8; ++t) {
      const uint8_t byte = block.qs[8 * b + t];
      out[16 * b + t] = static_cast<float>(kFp4[byte & 15]) * d;
      out[16 * b + 8 + t] = static_cast<float>(kFp4[byte >> 4]) * d;
    }
  }
}

inline void decode_block(const BlockTQ1_0& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  constexpr int kPowersOf3[] = {1, 3, 9, 27, 81};
  // n_bytes bytes of n_digits digits each; digit n of all bytes comes before digit n + 1 of any.
  const auto decode_digits = [&](const uint8_t* bytes, int n_bytes, int n_digits) {
    for (int n = 0; n < n_digits; ++n) {
      for (int t = 0; t < n_bytes; ++t) {
        const int digit = (((bytes[t] * kPowersOf3[n]) & 255) * 3) >> 8;
        *out++ = static_cast<float>(digit - 1) * d;
      }
    }
  };
  decode_digits(block.qs, 32, 5);
  decode_digits(block.qs + 32, 16, 5);
  decode_digits(block.qh, 4, 4);
}

inline void decode_block(const BlockTQ2_0& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int h = 0; h < 2; ++h) {
    for (int k = 0; k < 4; ++k) {
      for (int t = 0; t < 32; ++t) *out++ = static_cast<float>(((block.qs[32 * h + t] >> (2 * k)) & 3) - 1) * d;
    }
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
