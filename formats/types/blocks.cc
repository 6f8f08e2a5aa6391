#include "formats/types/blocks.h"

namespace quern {
namespace {

uint8_t byte(int value) noexcept { return static_cast<uint8_t>(value); }

}  // namespace

uint16_t scale_bits(const BlockIQ1_M& block) noexcept {
  const uint16_t* words = block.scales;
  return static_cast<uint16_t>((words[0] >> 12) | ((words[1] >> 8) & 0x00F0) | ((words[2] >> 4) & 0x0F00) | (words[3] & 0xF000));
}

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

}  // namespace quern
