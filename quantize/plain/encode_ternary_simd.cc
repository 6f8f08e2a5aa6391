// Encoders of the types with one scale for codes of at most two bits: TQ1_0 and TQ2_0 (-1, 0, 1) and Q2_0 (-1, 0, 1, 2).

#include "quantize/plain/encoders.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/plain/encode_ternary_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/plain/levels-inl.h"
#include "quantize/plain/scaled_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// One scale for 256 free ternary codes (0, 1, 2 mean -1, 0, 1). The ladder includes the largest magnitude itself, so weights that are
// ternary already keep their values.
template <typename Block>
void encode_ternary(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_with_one_scale<TernaryLevels, kSuper, Block>(x, n_rows, importance, n_cols, Ladder{0.07f, 0.03f, 32}.for_effort(effort), out,
                                                      [](uint16_t d, const uint8_t* codes, Block& block) { pack_block(d, codes, block); });
}

void encode_rows_TQ2_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_ternary<BlockTQ2_0>(x, n_rows, importance, n_cols, effort, out);
}

void encode_rows_TQ1_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_ternary<BlockTQ1_0>(x, n_rows, importance, n_cols, effort, out);
}

// -2, -1, 0, 1. Scales may be small beside the largest weight, so values reach to 4 times the outermost level.
struct LopsidedLevels : UniformLevels<-2, 1> {
  static constexpr int kFraction = 12;
  static constexpr int kRestBits = kFraction;
  static constexpr float kMostRest = 32768.0f - (1 << kFraction);
  static HWY_INLINE ShortPart rest(ShortPart v) { return rest_of<-2, 1, kFraction>(v); }
};

// The fourth level makes the orientation matter: d is negative where the heavier tail of a block is. The search sees the levels the other
// way round, lowest first, as those of Q3_K and Q4_0. Ladders include the largest magnitude on either end, so that weights which are
// Q2_0 already keep their values.
void encode_rows_Q2_0(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_with_one_scale<LopsidedLevels, 64, BlockQ2_0>(
      x, n_rows, importance, n_cols, Ladder{0.25f, 0.05f, 16}.for_effort(effort), out,
      [](uint16_t d, const uint8_t* codes, BlockQ2_0& block) { pack_block(d, codes, block); });
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROWS_ENCODER(Q2_0)
QUERN_DISPATCH_ROWS_ENCODER(TQ1_0)
QUERN_DISPATCH_ROWS_ENCODER(TQ2_0)
}  // namespace quern
#endif
