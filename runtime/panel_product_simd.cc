#include "runtime/panel_product.h"

// Rows are taken 12 at a time (then 4, then 1): with one 16-lane vector of x per k, AVX-512 keeps 12 accumulators and their block
// sums in its 32 registers, and every load of x serves 12 multiply-adds. Narrower CPUs make two or four passes over the lanes.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/panel_product_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<float, kPanelWidth>;

template <int kRows>
HWY_INLINE void rows_product(const float* HWY_RESTRICT w, int64_t row_stride, int64_t column_stride, const float* HWY_RESTRICT x,
                             int64_t n_k, float* HWY_RESTRICT out) {
  const Tag d;
  using V = hn::Vec<Tag>;
  V total[kRows];
  for (int r = 0; r < kRows; ++r) total[r] = hn::Zero(d);
  for (int64_t first = 0; first < n_k; first += kSumBlock) {
    const int64_t end = first + kSumBlock < n_k ? first + kSumBlock : n_k;
    V sum[kRows];
    for (int r = 0; r < kRows; ++r) sum[r] = hn::Zero(d);
    for (int64_t k = first; k < end; ++k) {
      const V column = hn::LoadU(d, x + k * kPanelWidth);
      for (int r = 0; r < kRows; ++r) sum[r] = hn::MulAdd(hn::Set(d, w[r * row_stride + k * column_stride]), column, sum[r]);
    }
    for (int r = 0; r < kRows; ++r) total[r] = hn::Add(total[r], sum[r]);
  }
  for (int r = 0; r < kRows; ++r) hn::StoreU(total[r], d, out + r * kPanelWidth);
}

template <int kRows>
HWY_INLINE int64_t full_groups(const PanelMatrix& w, int64_t first_row, const float* x, int64_t n_k, float* out) {
  int64_t row = first_row;
  for (; row + kRows <= w.n_rows; row += kRows) {
    const float* data = w.data + row * w.row_stride;
    if (w.column_stride == 1) {
      rows_product<kRows>(data, w.row_stride, 1, x, n_k, out + row * kPanelWidth);
    } else {
      rows_product<kRows>(data, w.row_stride, w.column_stride, x, n_k, out + row * kPanelWidth);
    }
  }
  return row;
}

void panel_product(const PanelMatrix& w, const float* x, int64_t n_k, float* out) {
  const Tag d;
  for (int64_t lane = 0; lane < kPanelWidth; lane += static_cast<int64_t>(hn::Lanes(d))) {
    int64_t row = full_groups<12>(w, 0, x + lane, n_k, out + lane);
    row = full_groups<4>(w, row, x + lane, n_k, out + lane);
    full_groups<1>(w, row, x + lane, n_k, out + lane);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
HWY_EXPORT(panel_product);
void panel_product_fast(const PanelMatrix& w, const float* x, int64_t n_k, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(panel_product)(w, x, n_k, out);
}
}  // namespace quern
#endif
