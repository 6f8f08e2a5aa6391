#include "recipes/type_ladder.h"

#include <algorithm>
#include <iterator>

// The table from which recipes, mixes, plans and `fit` learn what a type may be used for. recipes/CMakeLists.txt reads its first column
// for the JSON schema of recipes, so each row stays on a line of its own.
//
// Candidates of fit are the block types that the mixes of llama-quantize use and every llama.cpp runs. Some never pay beside a neighbour
// of no greater size (docs/encoders.md), but fit compares itself with mixes that have them, and a predicted loss decides which of those
// are measured. Of two types of one size fit prefers the one that stands first.

namespace quern {
namespace {

using enum NeedsImportance;
constexpr bool kFit = true, kNoFit = false;

// name, narrower type, needs importance, candidate of fit
#define QUERN_TYPE_LADDER(X)       \
  X(Q1_0, F16, kNo, kNoFit)        \
  X(IQ1_S, IQ4_NL, kYes, kFit)     \
  X(TQ1_0, Q4_0, kNo, kFit)        \
  X(IQ1_M, IQ4_NL, kYes, kFit)     \
  X(IQ2_XXS, IQ4_NL, kYes, kFit)   \
  X(TQ2_0, Q4_0, kNo, kFit)        \
  X(Q2_0, Q4_0, kNo, kNoFit)       \
  X(IQ2_XS, IQ4_NL, kYes, kFit)    \
  X(IQ2_S, IQ4_NL, kYes, kFit)     \
  X(Q2_K, Q4_0, kInSmallMix, kFit) \
  X(IQ3_XXS, IQ4_NL, kYes, kFit)   \
  X(Q3_K, Q4_0, kNo, kFit)         \
  X(IQ3_S, IQ4_NL, kNo, kFit)      \
  X(IQ4_XS, IQ4_NL, kNo, kFit)     \
  X(MXFP4, F16, kNo, kFit)         \
  X(NVFP4, F16, kNo, kNoFit)       \
  X(IQ4_NL, F16, kNo, kFit)        \
  X(Q4_0, F16, kNo, kFit)          \
  X(Q4_K, Q5_0, kNo, kFit)         \
  X(Q4_1, F16, kNo, kFit)          \
  X(Q5_0, F16, kNo, kFit)          \
  X(Q5_K, Q5_1, kNo, kFit)         \
  X(Q5_1, F16, kNo, kFit)          \
  X(Q6_K, Q8_0, kNo, kFit)         \
  X(Q8_0, F16, kNo, kFit)          \
  X(F16, F16, kNo, kNoFit)         \
  X(BF16, F16, kNo, kNoFit)        \
  X(F32, F16, kNo, kNoFit)

constexpr TypeStep kSteps[] = {
#define QUERN_TYPE_STEP(name, narrower, needs_importance, fit) {DType::name, DType::narrower, needs_importance, fit},
    QUERN_TYPE_LADDER(QUERN_TYPE_STEP)
#undef QUERN_TYPE_STEP
};

}  // namespace

std::span<const TypeStep> type_ladder() noexcept { return kSteps; }

const TypeStep* find_step(DType type) noexcept {
  const TypeStep* found = std::ranges::find(kSteps, type, &TypeStep::type);
  return found == std::end(kSteps) ? nullptr : found;
}

}  // namespace quern
