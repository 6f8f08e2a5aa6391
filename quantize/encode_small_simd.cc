// Encoders of the types with one scale (and perhaps an offset) per 32 weights.

#include "formats/blocks.h"
#include "quantize/block_weights.h"
#include "quantize/pack.h"
#include "quantize/row_encoders.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/encode_small_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/affine_rows-inl.h"
#include "quantize/levels-inl.h"
#include "quantize/scale_search-inl.h"
#include "quantize/scaled_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

constexpr int kSize = 32;

// y = d * level; pack(codes, block) puts the codes into a block.
template <typename Levels, typename Block, typename Pack>
void encode_scaled(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, const Ladder& ladder, std::byte* out,
                   Pack pack) {
  const auto encode = [&](const RowGroup<kSize>& group, const auto& put) {
    const Lanes d = search_f16_scales<Levels>(group, ladder);
    uint8_t codes[kSize][kLanes];
    codes_of_rows<Levels>(group.x, kSize, d, codes);
    alignas(64) float scales[kLanes];
    store(d, scales);
    uint8_t own_codes[kLanes][kSize];
    rows_of_codes(codes, own_codes);
    put([&](int i, Block& block) {
      block.d = stored_scale(scales[i], group.unit[i]);
      pack(own_codes[i], block);
    });
  };
  for_each_group<kSize, Block>(x, n_rows, importance, n_cols, out, encode);
}

void encode_rows_Q4_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_scaled<UniformLevels<-8, 7>, BlockQ4_0>(x, n_rows, importance, n_cols, Ladder{0.6f, 0.022f, 32}.for_effort(effort), out,
                                                 [](const uint8_t* codes, BlockQ4_0& block) { store_nibbles(codes, block.qs); });
}

void encode_rows_Q5_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_scaled<UniformLevels<-16, 15>, BlockQ5_0>(x, n_rows, importance, n_cols, Ladder{0.65f, 0.02f, 32}.for_effort(effort), out,
                                                   [](const uint8_t* codes, BlockQ5_0& block) {
                                                     store_nibbles(codes, block.qs);
                                                     store_fifth_bits(codes, block.qh);
                                                   });
}

void encode_rows_Q8_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_scaled<UniformLevels<-127, 127>, BlockQ8_0>(x, n_rows, importance, n_cols, Ladder{0.995f, 0.0036f, 64}.for_effort(effort), out,
                                                     [](const uint8_t* codes, BlockQ8_0& block) {
                                                       for (int e = 0; e < kSize; ++e) block.qs[e] = static_cast<int8_t>(codes[e] - 127);
                                                     });
}

void encode_rows_IQ4_NL(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_scaled<Iq4nlLevels, BlockIQ4_NL>(x, n_rows, importance, n_cols, Ladder{0.6f, 0.022f, 32}.for_effort(effort), out,
                                          [](const uint8_t* codes, BlockIQ4_NL& block) { store_nibbles(codes, block.qs); });
}

// y = q * d + m, m of either sign; pack(codes, block) puts the codes into a block.
template <int kMaxCode, typename Block, typename Pack>
void encode_affine(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, float clip_step, Effort effort, std::byte* out,
                   Pack pack) {
  const auto encode = [&](const RowGroup<kSize>& group, const auto& put) {
    const Lanes unit = load(group.unit);
    const auto round = [&unit](const Lanes& member) { return round_to_f16(member, unit); };
    const AffineRowErrors<kMaxCode, kMaxCode + 1, kSize> errors(group.x, group.w);
    const RowPairs found = search_pairs<kFirstPairs>(errors, {kMaxCode, clip_step, by_effort(effort, 3, 6, 12), false}, round);
    uint8_t codes[kSize][kLanes];
    affine_codes_of_rows(group.x, kSize, kMaxCode, found.scale, found.min, codes);
    alignas(64) float scales[kLanes];
    alignas(64) float mins[kLanes];
    store(found.scale, scales);
    store(found.min, mins);
    uint8_t own_codes[kLanes][kSize];
    rows_of_codes(codes, own_codes);
    put([&](int i, Block& block) {
      block.d = stored_scale(scales[i], group.unit[i]);
      block.m = stored_scale(-mins[i], group.unit[i]);
      pack(own_codes[i], block);
    });
  };
  for_each_group<kSize, Block>(x, n_rows, importance, n_cols, out, encode);
}

void encode_rows_Q4_1(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_affine<15, BlockQ4_1>(x, n_rows, importance, n_cols, 0.08f, effort, out,
                               [](const uint8_t* codes, BlockQ4_1& block) { store_nibbles(codes, block.qs); });
}

void encode_rows_Q5_1(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_affine<31, BlockQ5_1>(x, n_rows, importance, n_cols, 0.06f, effort, out, [](const uint8_t* codes, BlockQ5_1& block) {
    store_nibbles(codes, block.qs);
    store_fifth_bits(codes, block.qh);
  });
}

// Scales are powers of two: exponents around the one that maps the largest weight to the levels 8 or 12, by exact error. That one
// represents every block of MXFP4 values exactly and comes first, so such blocks keep their values. The same for every effort.
void encode_row_MXFP4(const float* x, const float* importance, int64_t n_cols, Effort, std::byte* out) {
  static constexpr int kOffsets[kLanes] = {0, 1, -1, 2, -2, -3, -4};
  static constexpr int kLowest = -128;  // E8M0 0
  static constexpr int kHighest = 124;  // E8M0 252: above, the level 12 is infinite
  const auto encode = [](const BlockWeights<kSize>& in, BlockMXFP4& block) {
    if (in.vanishes) return;
    const int unit_exponent = std::ilogb(in.unit);
    int exponents[kLanes];
    alignas(64) float scales[kLanes];
    for (int c = 0; c < kLanes; ++c) {
      exponents[c] = std::clamp(unit_exponent - 3 + kOffsets[c], kLowest, kHighest);
      scales[c] = std::ldexp(1.0f, exponents[c] - unit_exponent);
    }
    const int best = minimum(errors_of_scales<Fp4Levels>(in.x, in.w, kSize, load(scales))).lane;
    block.e = static_cast<uint8_t>(exponents[best] + 128);
    uint8_t codes[kSize];
    codes_for_scale<Fp4Levels>(in.x, kSize, scales[best], codes);
    store_nibbles(codes, block.qs);
  };
  for_each_block<kSize, BlockMXFP4>(x, importance, n_cols, out, encode, std::numeric_limits<float>::denorm_min());
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROWS_ENCODER(Q4_0)
QUERN_DISPATCH_ROWS_ENCODER(Q4_1)
QUERN_DISPATCH_ROWS_ENCODER(Q5_0)
QUERN_DISPATCH_ROWS_ENCODER(Q5_1)
QUERN_DISPATCH_ROWS_ENCODER(Q8_0)
QUERN_DISPATCH_ROWS_ENCODER(IQ4_NL)
QUERN_DISPATCH_ROW_ENCODER(MXFP4)
}  // namespace quern
#endif
