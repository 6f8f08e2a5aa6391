// Encoders of the K-quants and IQ4_XS: 256 weights share binary16 scales, sub-blocks of 16 or 32 have integer scales (and mins).

#include "formats/blocks.h"
#include "quantize/block_weights.h"
#include "quantize/pack.h"
#include "quantize/row_encoders.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/encode_k_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/affine_search-inl.h"
#include "quantize/levels-inl.h"
#include "quantize/scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

constexpr int kSuper = 256;

// Result of a search over affine super-blocks with its codes.
template <int kSubBlocks, int kMaxCode, int kMaxScale>
struct AffineBlock {
  using Search = AffineSuperBlock<kSubBlocks, kSuper / kSubBlocks, kMaxCode, kMaxScale>;
  typename Search::Fit fit;
  uint8_t codes[kSuper];

  template <size_t kStarts>
  AffineBlock(const BlockWeights<kSuper>& in, float clip_step, const typename Search::Start (&starts)[kStarts], Effort effort) {
    constexpr int kSize = kSuper / kSubBlocks;
    if (!in.vanishes) {
      const Search search(in.x, in.w, in.unit, clip_step, by_effort(effort, 3, 5, 8));
      fit = search.search(starts, by_effort(effort, 1, 4, kStarts), by_effort(effort, 2, 3, 8));
    }
    for (int b = 0; b < kSubBlocks; ++b) {
      codes_for_affine(in.x + b * kSize, kSize, kMaxCode, fit.d * static_cast<float>(fit.scale[b]),
                       fit.dmin * static_cast<float>(fit.min[b]), codes + b * kSize);
    }
  }
};

void encode_row_Q2_K(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  using Affine = AffineBlock<16, 3, 15>;
  static constexpr Affine::Search::Start kStarts[] = {{15, 15}, {14, 14}, {12, 12}, {17, 17}, {13, 15},
                                                      {15, 13}, {17, 14}, {14, 17}, {19, 15}, {11, 14}};
  for_each_block<kSuper, BlockQ2_K>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockQ2_K& block) {
    const Affine found(in, 0.2f, kStarts, effort);
    block.d = stored_scale(found.fit.d, in.unit);
    block.dmin = stored_scale(found.fit.dmin, in.unit);
    for (int b = 0; b < 16; ++b) block.scales[b] = static_cast<uint8_t>(found.fit.scale[b] | found.fit.min[b] << 4);
    store_2bit_planes(found.codes, 0, block.qs);
  });
}

// The part that Q4_K and Q5_K share.
template <int kMaxCode, typename Block>
AffineBlock<8, kMaxCode, 63> encode_affine_32(const BlockWeights<kSuper>& in, float clip_step, Effort effort, Block& block) {
  using Affine = AffineBlock<8, kMaxCode, 63>;
  static constexpr typename Affine::Search::Start kStarts[] = {{63, 63}, {60, 60}, {55, 55}, {50, 50}, {61, 58},
                                                               {58, 61}, {53, 62}, {62, 53}, {66, 66}, {46, 46}};
  const Affine found(in, clip_step, kStarts, effort);
  block.d = stored_scale(found.fit.d, in.unit);
  block.dmin = stored_scale(found.fit.dmin, in.unit);
  uint8_t scales[8];
  uint8_t mins[8];
  for (int b = 0; b < 8; ++b) {
    scales[b] = static_cast<uint8_t>(found.fit.scale[b]);
    mins[b] = static_cast<uint8_t>(found.fit.min[b]);
  }
  pack_scales_q4_k(scales, mins, block.scales);
  store_nibble_halves(found.codes, 64, block.qs);
  return found;
}

void encode_row_Q4_K(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, BlockQ4_K>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockQ4_K& block) {
    encode_affine_32<15>(in, 0.08f, effort, block);
  });
}

void encode_row_Q5_K(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, BlockQ5_K>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockQ5_K& block) {
    const auto found = encode_affine_32<31>(in, 0.06f, effort, block);
    store_1bit_planes(found.codes, 4, block.qh);
  });
}

// Result of a search over super-blocks with signed integer scales, with its codes.
template <typename Levels, int kSubBlocks, int kLowScale, int kHighScale, int kWindow, int kSmaller>
struct ScaledBlock {
  static constexpr int kSize = kSuper / kSubBlocks;
  using Search = ScaledSuperBlock<Levels, kSubBlocks, kSize, kLowScale, kHighScale, kWindow, kSmaller>;
  typename Search::Fit fit;
  uint8_t codes[kSuper];

  // usual: how many of the targets, ordered by merit, the default tries.
  template <size_t kTargets>
  ScaledBlock(const BlockWeights<kSuper>& in, const Ladder& ladder, const float (&targets)[kTargets], int usual, Effort effort) {
    if (!in.vanishes) {
      const Search search(in.x, in.w, in.unit, ladder.for_effort(effort));
      fit = search.search(targets, by_effort(effort, 1, usual, kTargets), by_effort(effort, 2, 2, 6));
    }
    for (int b = 0; b < kSubBlocks; ++b) {
      codes_for_scale<Levels>(in.x + b * kSize, kSize, fit.d * static_cast<float>(fit.l[b]), codes + b * kSize);
    }
  }
};

void encode_row_Q3_K(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  static constexpr float kTargets[] = {-32, 31, -30, 29, -27, 25, -31, 30, -29, 28, -28, 27, -26, 26, -24, 23};
  for_each_block<kSuper, BlockQ3_K>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockQ3_K& block) {
    const ScaledBlock<UniformLevels<-4, 3>, 16, -32, 31, 8, 4> found(in, {0.5f, 0.04f, 1}, kTargets, 6, effort);
    block.d = stored_scale(found.fit.d, in.unit);
    uint8_t scales[16];
    for (int b = 0; b < 16; ++b) scales[b] = static_cast<uint8_t>(found.fit.l[b] + 32);
    pack_scales_q3_k(scales, block.scales);
    store_2bit_planes(found.codes, 0, block.qs);
    store_1bit_planes(found.codes, 2, block.hmask);
  });
}

void encode_row_Q6_K(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  static constexpr float kTargets[] = {-128, 127, -120, 112, -124, 124, -116, 108, -104, 100};
  for_each_block<kSuper, BlockQ6_K>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockQ6_K& block) {
    const ScaledBlock<UniformLevels<-32, 31>, 16, -128, 127, 16, 2> found(in, {0.85f, 0.0125f, 1}, kTargets, 4, effort);
    block.d = stored_scale(found.fit.d, in.unit);
    for (int b = 0; b < 16; ++b) block.scales[b] = static_cast<int8_t>(found.fit.l[b]);
    store_nibble_halves(found.codes, 128, block.ql);
    store_2bit_planes(found.codes, 4, block.qh);
  });
}

void encode_row_IQ4_XS(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  static constexpr float kTargets[] = {-32, 31, -30, 29, -31, 30, -28, 27, -26, 25};
  for_each_block<kSuper, BlockIQ4_XS>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockIQ4_XS& block) {
    const ScaledBlock<Iq4nlLevels, 8, -32, 31, 8, 4> found(in, {0.6f, 0.035f, 1}, kTargets, 2, effort);
    block.d = stored_scale(found.fit.d, in.unit);
    for (int b = 0; b < 8; ++b) {
      const int stored = found.fit.l[b] + 32;
      block.scales_l[b / 2] |= static_cast<uint8_t>((stored & 15) << (4 * (b % 2)));
      block.scales_h |= static_cast<uint16_t>((stored >> 4) << (2 * b));
    }
    store_nibble_halves(found.codes, 32, block.qs);
  });
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROW_ENCODER(Q2_K)
QUERN_DISPATCH_ROW_ENCODER(Q3_K)
QUERN_DISPATCH_ROW_ENCODER(Q4_K)
QUERN_DISPATCH_ROW_ENCODER(Q5_K)
QUERN_DISPATCH_ROW_ENCODER(Q6_K)
QUERN_DISPATCH_ROW_ENCODER(IQ4_XS)
}  // namespace quern
#endif
