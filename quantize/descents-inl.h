// What searches from several starts have in common. Compiled once per CPU target.

#if defined(QUERN_QUANTIZE_DESCENTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_DESCENTS_INL_H_
#undef QUERN_QUANTIZE_DESCENTS_INL_H_
#else
#define QUERN_QUANTIZE_DESCENTS_INL_H_
#endif

#include <algorithm>
#include <numeric>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

inline constexpr int kMostStarts = 16;  // even: some searches rate two at once

// The best end of descend(start) from the n_descents starts of least error, the earlier one where two are equal.
template <typename Fit, typename Descend>
Fit best_descent(const Fit* starts, int n_starts, int n_descents, Descend descend) {
  int order[kMostStarts];
  std::iota(order, order + n_starts, 0);
  std::sort(order, order + n_starts,
            [starts](int a, int b) { return starts[a].error < starts[b].error || (starts[a].error == starts[b].error && a < b); });
  Fit best;
  for (int k = 0; k < std::min(n_starts, n_descents); ++k) {
    const Fit fit = descend(starts[order[k]]);
    if (fit.error < best.error) best = fit;
  }
  return best;
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_DESCENTS_INL_H_
