// Products of part of R with 16 rows of weights side by side: what the errors of earlier tiles ask of a tile, and the way back.

#include "quantize/feedback/feedback_tile.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/feedback/feedback_product_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/plain/lanes-inl.h"

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

// kRows rows of R from r on.
template <int kRows>
void subtract_rows(const float* r, int64_t n, const float* a, float* v) {
  Lanes part[kRows];
  for (Lanes& sum : part) sum = splat(0.0f);
  for (int64_t k = 0; k < n; ++k) {
    const Lanes value = load(a + k * kLanes);
    for (int i = 0; i < kRows; ++i) part[i] += splat(r[i * n + k]) * value;
  }
  for (int i = 0; i < kRows; ++i) store(load(v + i * kLanes) - part[i], v + i * kLanes);
}

void subtract_transposed(const float* r, int64_t n, const float* a, int64_t n_rows, float* v) {
  constexpr int kRows = kParts > 2 ? 4 : 8;
  int64_t i = 0;
  for (; i + kRows <= n_rows; i += kRows) subtract_rows<kRows>(r + i * n, n, a, v + i * kLanes);
  for (; i < n_rows; ++i) subtract_rows<1>(r + i * n, n, a, v + i * kLanes);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
HWY_EXPORT(add_feedback);
void add_feedback(const float* r, int64_t n, const float* errors, int64_t n_k, float* sums) noexcept {
  HWY_DYNAMIC_DISPATCH(add_feedback)(r, n, errors, n_k, sums);
}
HWY_EXPORT(subtract_transposed);
void subtract_transposed(const float* r, int64_t n, const float* a, int64_t n_rows, float* v) noexcept {
  HWY_DYNAMIC_DISPATCH(subtract_transposed)(r, n, a, n_rows, v);
}
}  // namespace quern
#endif
