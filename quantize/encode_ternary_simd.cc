// Encoders of TQ1_0 and TQ2_0: codes -1, 0, 1.

#include "quantize/block_weights.h"
#include "quantize/pack_blocks.h"
#include "quantize/row_encoders.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/encode_ternary_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/levels-inl.h"
#include "quantize/scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

constexpr int kSuper = 256;

// One scale for 256 free ternary codes (0, 1, 2 mean -1, 0, 1). The ladder includes the largest magnitude itself, so weights that are
// ternary already keep their values.
template <typename Block>
void encode_ternary(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  using Levels = UniformLevels<-1, 1>;
  for_each_block<kSuper, Block>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, Block& block) {
    const Ladder ladder = Ladder{0.07f, 0.03f, 32}.for_effort(effort);
    const float d = in.vanishes ? 0.0f : search_f16_scale<Levels>(in.x, in.w, kSuper, in.unit, ladder).scale;
    uint8_t codes[kSuper];
    codes_for_scale<Levels>(in.x, kSuper, d, codes);
    pack_block(stored_scale(d, in.unit), codes, block);
  });
}

void encode_row_TQ2_0(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_ternary<BlockTQ2_0>(x, importance, n_cols, effort, out);
}

void encode_row_TQ1_0(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_ternary<BlockTQ1_0>(x, importance, n_cols, effort, out);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROW_ENCODER(TQ1_0)
QUERN_DISPATCH_ROW_ENCODER(TQ2_0)
}  // namespace quern
#endif
