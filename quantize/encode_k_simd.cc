// Encoders of the K-quants and IQ4_XS: 256 weights share binary16 scales, sub-blocks of 16 or 32 have integer scales (and mins).

#include "formats/blocks.h"
#include "quantize/block_weights.h"
#include "quantize/pack_blocks.h"
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
      const Search search(in.x, in.w, in.unit, clip_step, by_effort(effort, 2, 3, 8));
      fit = search.search(starts, by_effort(effort, 1, 8, kStarts), by_effort(effort, 1, 1, kStarts), by_effort(effort, 1, 2, 8));
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
    pack_block(stored_scale(found.fit.d, in.unit), stored_scale(found.fit.dmin, in.unit), found.fit.scale, found.fit.min, found.codes,
               block);
  });
}

// Q4_K and Q5_K.
template <int kMaxCode, typename Block>
void encode_affine_32(const float* x, const float* importance, int64_t n_cols, float clip_step, Effort effort, std::byte* out) {
  using Affine = AffineBlock<8, kMaxCode, 63>;
  static constexpr typename Affine::Search::Start kStarts[] = {{63, 63}, {60, 60}, {55, 55}, {50, 50}, {61, 58},
                                                               {58, 61}, {53, 62}, {62, 53}, {66, 66}, {46, 46}};
  for_each_block<kSuper, Block>(x, importance, n_cols, out, [effort, clip_step](const BlockWeights<kSuper>& in, Block& block) {
    const Affine found(in, clip_step, kStarts, effort);
    pack_block(stored_scale(found.fit.d, in.unit), stored_scale(found.fit.dmin, in.unit), found.fit.scale, found.fit.min, found.codes,
               block);
  });
}

void encode_row_Q4_K(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_affine_32<15, BlockQ4_K>(x, importance, n_cols, 0.08f, effort, out);
}

void encode_row_Q5_K(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_affine_32<31, BlockQ5_K>(x, importance, n_cols, 0.06f, effort, out);
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
      fit = search.search(targets, by_effort(effort, 1, usual, kTargets), by_effort(effort, 1, 1, kTargets), by_effort(effort, 1, 1, 6));
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
    pack_block(stored_scale(found.fit.d, in.unit), found.fit.l, found.codes, block);
  });
}

void encode_row_Q6_K(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  static constexpr float kTargets[] = {-128, 127, -120, 112, -124, 124, -116, 108, -104, 100};
  for_each_block<kSuper, BlockQ6_K>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockQ6_K& block) {
    const ScaledBlock<UniformLevels<-32, 31>, 16, -128, 127, 16, 2> found(in, {0.85f, 0.0125f, 1}, kTargets, 4, effort);
    pack_block(stored_scale(found.fit.d, in.unit), found.fit.l, found.codes, block);
  });
}

void encode_row_IQ4_XS(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  static constexpr float kTargets[] = {-32, 31, -30, 29, -31, 30, -28, 27, -26, 25};
  for_each_block<kSuper, BlockIQ4_XS>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockIQ4_XS& block) {
    const ScaledBlock<Iq4nlLevels, 8, -32, 31, 8, 4> found(in, {0.6f, 0.035f, 1}, kTargets, 2, effort);
    pack_block(stored_scale(found.fit.d, in.unit), found.fit.l, found.codes, block);
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
