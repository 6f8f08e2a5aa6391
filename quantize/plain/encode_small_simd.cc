// Encoders of the types with one scale (and perhaps an offset) per 32 weights.

#include "formats/types/blocks.h"
#include "quantize/plain/encoders.h"
#include "quantize/plain/pack.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/plain/encode_small_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/plain/affine_rows-inl.h"
#include "quantize/plain/levels-inl.h"
#include "quantize/plain/scale_search-inl.h"
#include "quantize/plain/scaled_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

constexpr int kSize = 32;

void encode_rows_Q4_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_with_one_scale<UniformLevels<-8, 7>, kSize, BlockQ4_0>(x, n_rows, importance, n_cols, Ladder{0.6f, 0.0293f, 24}.for_effort(effort),
                                                                out, [](uint16_t d, const uint8_t* codes, BlockQ4_0& block) {
                                                                  block.d = d;
                                                                  store_nibbles(codes, block.qs);
                                                                });
}

void encode_rows_Q5_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_with_one_scale<UniformLevels<-16, 15>, kSize, BlockQ5_0>(x, n_rows, importance, n_cols,
                                                                  Ladder{0.65f, 0.0267f, 24}.for_effort(effort), out,
                                                                  [](uint16_t d, const uint8_t* codes, BlockQ5_0& block) {
                                                                    block.d = d;
                                                                    store_nibbles(codes, block.qs);
                                                                    store_fifth_bits(codes, block.qh);
                                                                  });
}

void encode_rows_Q8_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_with_one_scale<UniformLevels<-127, 127>, kSize, BlockQ8_0>(x, n_rows, importance, n_cols,
                                                                    Ladder{0.995f, 0.0036f, 64}.for_effort(effort), out,
                                                                    [](uint16_t d, const uint8_t* codes, BlockQ8_0& block) {
                                                                      block.d = d;
                                                                      for (int e = 0; e < kSize; ++e)
                                                                        block.qs[e] = static_cast<int8_t>(codes[e] - 127);
                                                                    });
}

void encode_rows_IQ4_NL(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_with_one_scale<Iq4nlLevels, kSize, BlockIQ4_NL>(x, n_rows, importance, n_cols, Ladder{0.6f, 0.0293f, 24}.for_effort(effort), out,
                                                         [](uint16_t d, const uint8_t* codes, BlockIQ4_NL& block) {
                                                           block.d = d;
                                                           store_nibbles(codes, block.qs);
                                                         });
}

// y = q * d + m, m of either sign; pack(codes, block) puts the codes into a block.
template <int kMaxCode, typename Block, typename Pack>
void encode_affine(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, float clip_step, Effort effort, std::byte* out,
                   Pack pack) {
  using Errors = AffineRowErrors<kMaxCode, kMaxCode + 1, kSize>;
  typename Errors::Columns of_errors;
  const auto prepare = [&](const float* w) { of_errors = typename Errors::Columns(w); };
  const auto encode = [&](const RowGroup<kSize>& group, const auto& put) {
    const Lanes unit = load(group.unit);
    const auto round = [&unit](const Lanes& member) { return round_to_f16(member, unit); };
    const Errors errors(group.x, group.w, of_errors);
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
  for_each_group<kSize, Block>(x, n_rows, importance, n_cols, out, encode, prepare);
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

// Exponents of MXFP4.
constexpr int kLowestExponent = -128;  // E8M0 0
constexpr int kHighestExponent = 124;  // E8M0 252: above, the level 12 is infinite

// Scales are powers of two: exponents around the one that maps the largest weight to the levels 8 or 12, by exact error. That one
// represents every block of MXFP4 values exactly and comes first, so such blocks keep their values. The same for every effort.
void encode_rows_MXFP4(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort, std::byte* out) {
  const auto encode = [](const RowGroup<kSize>& group, const auto& put) {
    int unit_exponents[kLanes];
    for (int i = 0; i < kLanes; ++i) unit_exponents[i] = std::ilogb(group.unit[i]);
    RowScales best{splat(0.0f), splat(HUGE_VALF)};
    for (const int offset : {0, 1, -1, 2, -2, -3, -4}) {
      alignas(64) float scales[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        scales[i] = power_of_two(std::clamp(unit_exponents[i] - 3 + offset, kLowestExponent, kHighestExponent) - unit_exponents[i]);
      }
      const Lanes scale = load(scales);
      const Lanes error = errors_of_rows<Fp4Levels>(group.x, group.w, kSize, scale);
      best.scale = select_less(error, best.error, scale, best.scale);
      best.error = min(best.error, error);
    }
    uint8_t codes[kSize][kLanes];
    codes_of_rows<Fp4Levels>(group.x, kSize, best.scale, codes);
    alignas(64) float scales[kLanes];
    store(best.scale, scales);
    uint8_t own_codes[kLanes][kSize];
    rows_of_codes(codes, own_codes);
    put([&](int i, BlockMXFP4& block) {
      block.e = static_cast<uint8_t>(std::ilogb(scales[i]) + unit_exponents[i] + 128);
      store_nibbles(own_codes[i], block.qs);
    });
  };
  for_each_group<kSize, BlockMXFP4>(x, n_rows, importance, n_cols, out, encode, NothingToPrepare(),
                                    std::numeric_limits<float>::denorm_min());
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
QUERN_DISPATCH_ROWS_ENCODER(MXFP4)
}  // namespace quern
#endif
