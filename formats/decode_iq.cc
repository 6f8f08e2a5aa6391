#include <bit>

#include "formats/base/bytes.h"
#include "formats/blocks.h"
#include "formats/codebooks.h"
#include "formats/float_convert.h"

// Decoders of the lattice types: groups of 8 (or quads of 4) magnitudes come from a code book, signs are stored apart.

namespace quern {
namespace {

// n magnitudes times scale, element j negative where bit j of signs is set. Returns the end.
template <size_t n>
float* emit_signed(const std::array<uint8_t, n>& magnitudes, float scale, uint32_t signs, float* out) noexcept {
  for (size_t j = 0; j < n; ++j) {
    const float value = scale * static_cast<float>(magnitudes[j]);
    *out++ = (signs >> j & 1u) != 0 ? -value : value;
  }
  return out;
}

float* emit_ternary(const std::array<int8_t, 8>& values, float scale, float delta, float* out) noexcept {
  for (const int8_t value : values) *out++ = scale * (static_cast<float>(value) + delta);
  return out;
}

int nibble(const uint8_t* bytes, int i) noexcept { return (bytes[i / 2] >> (4 * (i % 2))) & 15; }

float iq2_scale(float d, int l) noexcept { return d * (0.5f + static_cast<float>(l)) * 0.25f; }

}  // namespace

void decode_block(const BlockIQ2_XXS& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int b = 0; b < 8; ++b) {
    const uint32_t indices = load_le<uint32_t>(block.qs + 4 * b);
    const uint32_t signs = load_le<uint32_t>(block.qs + 4 * b + 2);
    const float scale = iq2_scale(d, static_cast<int>(signs >> 28));
    for (int k = 0; k < 4; ++k) {
      out = emit_signed(kIq2xxsGrid[(indices >> (8 * k)) & 255], scale, signs_of_code((signs >> (7 * k)) & 127), out);
    }
  }
}

void decode_block(const BlockIQ2_XS& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int g = 0; g < 32; ++g) {
    const uint32_t q = block.qs[g];
    out = emit_signed(kIq2xsGrid[q & 511], iq2_scale(d, nibble(block.scales, g / 2)), signs_of_code(q >> 9), out);
  }
}

void decode_block(const BlockIQ2_S& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int g = 0; g < 32; ++g) {
    const size_t index = block.qs[g] | static_cast<size_t>((block.qh[g / 4] >> (2 * (g % 4))) & 3) << 8;
    out = emit_signed(kIq2sGrid[index], iq2_scale(d, nibble(block.scales, g / 2)), block.signs[g], out);
  }
}

void decode_block(const BlockIQ3_XXS& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int b = 0; b < 8; ++b) {
    const uint32_t gas = load_le<uint32_t>(block.gas + 4 * b);
    const float scale = d * (0.5f + static_cast<float>(gas >> 28)) * 0.5f;
    for (int k = 0; k < 4; ++k) {
      const uint32_t signs = signs_of_code((gas >> (7 * k)) & 127);
      out = emit_signed(kIq3xxsGrid[block.qs[8 * b + 2 * k]], scale, signs, out);
      out = emit_signed(kIq3xxsGrid[block.qs[8 * b + 2 * k + 1]], scale, signs >> 4, out);
    }
  }
}

void decode_block(const BlockIQ3_S& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int quad = 0; quad < 64; ++quad) {
    const float scale = d * static_cast<float>(1 + 2 * nibble(block.scales, quad / 8));
    const size_t index = block.qs[quad] | static_cast<size_t>((block.qh[quad / 8] >> (quad % 8)) & 1) << 8;
    out = emit_signed(kIq3sGrid[index], scale, static_cast<uint32_t>(block.signs[quad / 2]) >> (4 * (quad % 2)), out);
  }
}

void decode_block(const BlockIQ1_S& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int g = 0; g < 32; ++g) {
    const uint32_t qh = block.qh[g / 4];
    const float scale = d * static_cast<float>(2 * ((qh >> 12) & 7) + 1);
    const size_t index = block.qs[g] | static_cast<size_t>((qh >> (3 * (g % 4))) & 7) << 8;
    out = emit_ternary(kIq1Grid[index], scale, (qh & 0x8000u) != 0 ? -0.125f : 0.125f, out);
  }
}

uint16_t scale_bits(const BlockIQ1_M& block) noexcept {
  const uint16_t* words = block.scales;
  return static_cast<uint16_t>((words[0] >> 12) | ((words[1] >> 8) & 0x00F0) | ((words[2] >> 4) & 0x0F00) | (words[3] & 0xF000));
}

void decode_block(const BlockIQ1_M& block, float* out) noexcept {
  const float d = f16_to_f32(scale_bits(block));
  for (int g = 0; g < 32; ++g) {
    const int l = (block.scales[g / 8] >> (3 * (g / 2 % 4))) & 7;
    const int qh = nibble(block.qh, g);
    const size_t index = block.qs[g] | static_cast<size_t>(qh & 7) << 8;
    out = emit_ternary(kIq1Grid[index], d * static_cast<float>(2 * l + 1), (qh & 8) != 0 ? -0.125f : 0.125f, out);
  }
}

void decode_block(const BlockIQ4_XS& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int b = 0; b < 8; ++b) {
    const int l = nibble(block.scales_l, b) | ((block.scales_h >> (2 * b)) & 3) << 4;
    const float scale = d * static_cast<float>(l - 32);
    for (int t = 0; t < 16; ++t) {
      const uint8_t q = block.qs[16 * b + t];
      out[t] = scale * static_cast<float>(kIq4nl[q & 15]);
      out[t + 16] = scale * static_cast<float>(kIq4nl[q >> 4]);
    }
    out += 32;
  }
}

}  // namespace quern
