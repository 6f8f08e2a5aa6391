// What the errors of earlier tiles ask of a tile: a product of part of R with the errors of 16 rows of weights.

#include "quantize/feedback_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/feedback_product_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// kColumns columns of R from r on, one block of k.
template <int kColumns>
void add_block(const float* r, int64_t n, const float* errors, int64_t n_k, float* sums) {
  Lanes part[kColumns];
  for (Lanes& sum : part) sum = splat(0.0f);
  for (int64_t k = 0; k < n_k; ++k) {
    const Lanes error = load(errors + k * kLanes);
    for (int c = 0; c < kColumns; ++c) part[c] += splat(r[k * n + c]) * error;
  }
  for (int c = 0; c < kColumns; ++c) store(load(sums + c * kLanes) + part[c], sums + c * kLanes);
}

void add_feedback(const float* r, int64_t n, const float* errors, int64_t n_k, float* sums) {
  constexpr int64_t kBlock = 256;
  constexpr int kColumns = kParts > 2 ? 4 : 8;  // as many sums as there are registers
  for (int64_t k = 0; k < n_k; k += kBlock) {
    const int64_t rows = n_k - k < kBlock ? n_k - k : kBlock;
    int64_t c = 0;
    for (; c + kColumns <= n; c += kColumns) add_block<kColumns>(r + k * n + c, n, errors + k * kLanes, rows, sums + c * kLanes);
    for (; c < n; ++c) add_block<1>(r + k * n + c, n, errors + k * kLanes, rows, sums + c * kLanes);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
HWY_EXPORT(add_feedback);
void add_feedback(const float* r, int64_t n, const float* errors, int64_t n_k, float* sums) noexcept {
  HWY_DYNAMIC_DISPATCH(add_feedback)(r, n, errors, n_k, sums);
}
}  // namespace quern
#endif
