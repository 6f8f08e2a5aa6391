// Decoders of the K-quants. Compiled once per CPU target.

#if defined(QUERN_FORMATS_DECODE_K_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_FORMATS_DECODE_K_INL_H_
#undef QUERN_FORMATS_DECODE_K_INL_H_
#else
#define QUERN_FORMATS_DECODE_K_INL_H_
#endif

#include "formats/types/blocks.h"
#include "formats/types/float_convert.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
inline void decode_block(const BlockQ2_K& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  for (int b = 0; b < 16; ++b) {
    const float scale = d * static_cast<float>(block.scales[b] & 15);
    const float min = dmin * static_cast<float>(block.scales[b] >> 4);
    const uint8_t* q = block.qs + 32 * (b / 8) + 16 * (b % 2);
    const int shift = 2 * (b / 2 % 4);
    for (int t = 0; t < 16; ++t) *out++ = scale * static_cast<float>((q[t] >> shift) & 3) - min;
  }
}

inline void decode_block(const BlockQ3_K& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  uint8_t scales[16];
  unpack_scales_q3_k(block.scales, scales);
  for (int b = 0; b < 16; ++b) {
    const float scale = d * static_cast<float>(scales[b] - 32);
    const uint8_t* q = block.qs + 32 * (b / 8) + 16 * (b % 2);
    const uint8_t* high = block.hmask + 16 * (b % 2);
    const int shift = 2 * (b / 2 % 4);
    for (int t = 0; t < 16; ++t) {
      const int code = ((q[t] >> shift) & 3) | (((high[t] >> (b / 2)) & 1) << 2);
      *out++ = scale * static_cast<float>(code - 4);
    }
  }
}

inline void decode_block(const BlockQ4_K& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  uint8_t scales[8];
  uint8_t mins[8];
  unpack_scales_q4_k(block.scales, scales, mins);
  for (int b = 0; b < 8; ++b) {
    const float scale = d * static_cast<float>(scales[b]);
    const float min = dmin * static_cast<float>(mins[b]);
    const uint8_t* q = block.qs + 32 * (b / 2);
    const int shift = 4 * (b % 2);
    for (int t = 0; t < 32; ++t) *out++ = scale * static_cast<float>((q[t] >> shift) & 15) - min;
  }
}

inline void decode_block(const BlockQ5_K& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  const float dmin = f16_to_f32(block.dmin);
  uint8_t scales[8];
  uint8_t mins[8];
  unpack_scales_q4_k(block.scales, scales, mins);
  for (int b = 0; b < 8; ++b) {
    const float scale = d * static_cast<float>(scales[b]);
    const float min = dmin * static_cast<float>(mins[b]);
    const uint8_t* q = block.qs + 32 * (b / 2);
    const int shift = 4 * (b % 2);
    for (int t = 0; t < 32; ++t) {
      const int code = ((q[t] >> shift) & 15) | (((block.qh[t] >> b) & 1) << 4);
      *out++ = scale * static_cast<float>(code) - min;
    }
  }
}

inline void decode_block(const BlockQ6_K& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int b = 0; b < 16; ++b) {
    const float scale = d * static_cast<float>(block.scales[b]);
    const uint8_t* low = block.ql + 64 * (b / 8) + 16 * (b % 4);
    const int low_shift = 4 * (b / 4 % 2);
    const uint8_t* high = block.qh + 32 * (b / 8) + 16 * (b % 2);
    const int high_shift = 2 * (b / 2 % 4);
    for (int t = 0; t < 16; ++t) {
      const int code = ((low[t] >> low_shift) & 15) | (((high[t] >> high_shift) & 3) << 4);
      *out++ = scale * static_cast<float>(code - 32);
    }
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
