#include "formats/blocks.h"
#include "formats/float_convert.h"

// Decoders of the K-quants and the packing of their 6-bit scales.

namespace quern {
namespace {

uint8_t byte(int value) noexcept { return static_cast<uint8_t>(value); }

}  // namespace

void unpack_scales_q4_k(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]) noexcept {
  for (int b = 0; b < 4; ++b) {
    scales[b] = byte(packed[b] & 63);
    mins[b] = byte(packed[b + 4] & 63);
    scales[b + 4] = byte((packed[b + 8] & 15) | ((packed[b] >> 6) << 4));
    mins[b + 4] = byte((packed[b + 8] >> 4) | ((packed[b + 4] >> 6) << 4));
  }
}

void pack_scales_q4_k(const uint8_t scales[8], const uint8_t mins[8], uint8_t packed[12]) noexcept {
  for (int b = 0; b < 4; ++b) {
    packed[b] = byte(scales[b] | ((scales[b + 4] >> 4) << 6));
    packed[b + 4] = byte(mins[b] | ((mins[b + 4] >> 4) << 6));
    packed[b + 8] = byte((scales[b + 4] & 15) | ((mins[b + 4] & 15) << 4));
  }
}

void unpack_scales_q3_k(const uint8_t packed[12], uint8_t scales[16]) noexcept {
  for (int b = 0; b < 16; ++b) {
    const int low = b < 8 ? packed[b] & 15 : packed[b - 8] >> 4;
    scales[b] = byte(low | (((packed[8 + b % 4] >> (2 * (b / 4))) & 3) << 4));
  }
}

void pack_scales_q3_k(const uint8_t scales[16], uint8_t packed[12]) noexcept {
  for (int b = 0; b < 8; ++b) packed[b] = byte((scales[b] & 15) | ((scales[b + 8] & 15) << 4));
  for (int b = 0; b < 4; ++b) {
    packed[8 + b] = byte((scales[b] >> 4) | ((scales[b + 4] >> 4) << 2) | ((scales[b + 8] >> 4) << 4) | ((scales[b + 12] >> 4) << 6));
  }
}

void decode_block(const BlockQ2_K& block, float* out) noexcept {
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

void decode_block(const BlockQ3_K& block, float* out) noexcept {
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

void decode_block(const BlockQ4_K& block, float* out) noexcept {
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

void decode_block(const BlockQ5_K& block, float* out) noexcept {
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

void decode_block(const BlockQ6_K& block, float* out) noexcept {
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

}  // namespace quern
