// Decoders of the lattice types: groups of 8 (or quads of 4) magnitudes come from a code book, signs are stored apart. Compiled once
// per CPU target.

#if defined(QUERN_FORMATS_DECODE_LATTICE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_FORMATS_DECODE_LATTICE_INL_H_
#undef QUERN_FORMATS_DECODE_LATTICE_INL_H_
#else
#define QUERN_FORMATS_DECODE_LATTICE_INL_H_
#endif

#include "formats/base/bytes.h"
#include "formats/types/blocks.h"
#include "formats/types/codebooks.h"
#include "formats/types/float_convert.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Magnitudes = std::array<uint8_t, 8>;

inline Magnitudes join(const std::array<uint8_t, 4>& first, const std::array<uint8_t, 4>& second) noexcept {
  return std::bit_cast<Magnitudes>(std::array{first, second});
}

// Magnitudes times scale, element j negative where bit j of signs is set. Returns the end.
HWY_INLINE float* emit_signed(const Magnitudes& magnitudes, float scale, uint32_t signs, float* out) noexcept {
  const hn::CappedTag<float, 8> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  for (size_t j = 0; j < magnitudes.size(); j += hn::MaxLanes(d)) {
    const auto values = hn::ConvertTo(
        d, hn::PromoteTo(hn::RebindToSigned<decltype(d)>(), hn::LoadU(hn::Rebind<uint8_t, decltype(d)>(), magnitudes.data() + j)));
    const auto at_top = hn::Shl(hn::Set(du, signs), hn::Sub(hn::Set(du, 31 - static_cast<uint32_t>(j)), hn::Iota(du, 0)));
    const auto sign = hn::And(at_top, hn::Set(du, 0x80000000u));
    hn::StoreU(hn::Xor(hn::Mul(values, hn::Set(d, scale)), hn::BitCast(d, sign)), d, out + j);
  }
  return out + magnitudes.size();
}

HWY_INLINE float* emit_ternary(const std::array<int8_t, 8>& values, float scale, float delta, float* out) noexcept {
  const hn::CappedTag<float, 8> d;
  for (size_t j = 0; j < values.size(); j += hn::MaxLanes(d)) {
    const auto value =
        hn::ConvertTo(d, hn::PromoteTo(hn::RebindToSigned<decltype(d)>(), hn::LoadU(hn::Rebind<int8_t, decltype(d)>(), values.data() + j)));
    hn::StoreU(hn::Mul(hn::Set(d, scale), hn::Add(value, hn::Set(d, delta))), d, out + j);
  }
  return out + values.size();
}

inline int nibble(const uint8_t* bytes, int i) noexcept { return (bytes[i / 2] >> (4 * (i % 2))) & 15; }

inline float iq2_scale(float d, int l) noexcept { return d * (0.5f + static_cast<float>(l)) * 0.25f; }

inline void decode_block(const BlockIQ2_XXS& block, float* out) noexcept {
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

inline void decode_block(const BlockIQ2_XS& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int g = 0; g < 32; ++g) {
    const uint32_t q = block.qs[g];
    out = emit_signed(kIq2xsGrid[q & 511], iq2_scale(d, nibble(block.scales, g / 2)), signs_of_code(q >> 9), out);
  }
}

inline void decode_block(const BlockIQ2_S& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int g = 0; g < 32; ++g) {
    const size_t index = block.qs[g] | static_cast<size_t>((block.qh[g / 4] >> (2 * (g % 4))) & 3) << 8;
    out = emit_signed(kIq2sGrid[index], iq2_scale(d, nibble(block.scales, g / 2)), block.signs[g], out);
  }
}

inline void decode_block(const BlockIQ3_XXS& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int b = 0; b < 8; ++b) {
    const uint32_t gas = load_le<uint32_t>(block.gas + 4 * b);
    const float scale = d * (0.5f + static_cast<float>(gas >> 28)) * 0.5f;
    for (int k = 0; k < 4; ++k) {
      const Magnitudes group = join(kIq3xxsGrid[block.qs[8 * b + 2 * k]], kIq3xxsGrid[block.qs[8 * b + 2 * k + 1]]);
      out = emit_signed(group, scale, signs_of_code((gas >> (7 * k)) & 127), out);
    }
  }
}

inline void decode_block(const BlockIQ3_S& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  const auto quad = [&](int i) { return kIq3sGrid[block.qs[i] | static_cast<size_t>((block.qh[i / 8] >> (i % 8)) & 1) << 8]; };
  for (int b = 0; b < 8; ++b) {
    const float scale = d * static_cast<float>(1 + 2 * nibble(block.scales, b));
    for (int g = 4 * b; g < 4 * b + 4; ++g) out = emit_signed(join(quad(2 * g), quad(2 * g + 1)), scale, block.signs[g], out);
  }
}

inline void decode_block(const BlockIQ1_S& block, float* out) noexcept {
  const float d = f16_to_f32(block.d);
  for (int g = 0; g < 32; ++g) {
    const uint32_t qh = block.qh[g / 4];
    const float scale = d * static_cast<float>(2 * ((qh >> 12) & 7) + 1);
    const size_t index = block.qs[g] | static_cast<size_t>((qh >> (3 * (g % 4))) & 7) << 8;
    out = emit_ternary(kIq1Grid[index], scale, (qh & 0x8000u) != 0 ? -0.125f : 0.125f, out);
  }
}

inline void decode_block(const BlockIQ1_M& block, float* out) noexcept {
  const float d = f16_to_f32(scale_bits(block));
  for (int g = 0; g < 32; ++g) {
    const int l = (block.scales[g / 8] >> (3 * (g / 2 % 4))) & 7;
    const int qh = nibble(block.qh, g);
    const size_t index = block.qs[g] | static_cast<size_t>(qh & 7) << 8;
    out = emit_ternary(kIq1Grid[index], d * static_cast<float>(2 * l + 1), (qh & 8) != 0 ? -0.125f : 0.125f, out);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
