#include "runtime/moment_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/moment_product_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Lanes are columns j, never positions in the sum. kRows rows of the result, kVectors vectors of columns.
template <int kRows, int kVectors>
HWY_INLINE void add_columns(const float* a, const float* b, int64_t n_rows, int64_t n, double* const* out, int64_t j) {
  const hn::ScalableTag<float> d;
  const auto width = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<decltype(d)> sums[kRows][kVectors];
  for (auto& row : sums) {
    for (auto& sum : row) sum = hn::Zero(d);
  }
  for (int64_t t = 0; t < n_rows; ++t) {
    hn::Vec<decltype(d)> column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = hn::LoadU(d, b + t * n + j + v * width);
    for (int i = 0; i < kRows; ++i) {
      const auto factor = hn::Set(d, a[t * n + i]);
      for (int v = 0; v < kVectors; ++v) sums[i][v] = hn::Add(sums[i][v], hn::Mul(factor, column[v]));
    }
  }
  HWY_ALIGN float values[hn::MaxLanes(d)];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      hn::Store(sums[i][v], d, values);
      for (int64_t k = 0; k < width; ++k) out[i][j + v * width + k] += static_cast<double>(values[k]);
    }
  }
}

template <int kRows>
HWY_INLINE void add_rows(const float* a, const float* b, int64_t n_rows, int64_t n, int64_t n_j, double* const* out) {
  const auto width = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  int64_t j = 0;
  for (; j + 2 * width <= n_j; j += 2 * width) add_columns<kRows, 2>(a, b, n_rows, n, out, j);
  for (; j + width <= n_j; j += width) add_columns<kRows, 1>(a, b, n_rows, n, out, j);
  for (; j < n_j; ++j) {
    for (int i = 0; i < kRows; ++i) {
      float sum = 0.0f;
      for (int64_t t = 0; t < n_rows; ++t) sum += a[t * n + i] * b[t * n + j];
      out[i][j] += static_cast<double>(sum);
    }
  }
}

void add_moment_rows(const float* a, const float* b, int64_t n_rows, int64_t n, int64_t first, int64_t n_i, int64_t n_j,
                     double* const* out) {
  constexpr int64_t kBlock = 256;
  for (int64_t t = 0; t < n_rows; t += kBlock) {
    const int64_t rows = n_rows - t < kBlock ? n_rows - t : kBlock;
    const float* x = a + t * n + first;
    const float* y = b + t * n;
    if (n_i == kMomentRows) {
      add_rows<kMomentRows>(x, y, rows, n, n_j, out);
    } else {
      for (int64_t i = 0; i < n_i; ++i) add_rows<1>(x + i, y, rows, n, n_j, out + i);
    }
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
HWY_EXPORT(add_moment_rows);
void add_moment_rows(const float* a, const float* b, int64_t n_rows, int64_t n, int64_t first, int64_t n_i, int64_t n_j,
                     double* const* out) noexcept {
  HWY_DYNAMIC_DISPATCH(add_moment_rows)(a, b, n_rows, n, first, n_i, n_j, out);
}
}  // namespace quern
#endif
