#include <algorithm>

#include "runtime/math/product_float.h"

// The f32 products. A block of kRows rows by kPanels panels of outputs stays in registers while k runs through kSumBlock steps: with
// AVX-512 24 sums, three vectors of weights and one value of x at a time, so that 11 loads serve 24 multiply-adds. The loops around it
// keep the weights of one block (48 KB) in the second-level cache while all rows pass by.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/math/product_float_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<float, kPanelWidth>;
using V = hn::Vec<Tag>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(Tag()));
constexpr int kVectors = static_cast<int>(kPanelWidth) / kLanes;  // of a panel
constexpr int kPanels = kVectors == 1 ? 3 : 1;                    // of outputs, taken together
constexpr int kRows = kVectors == 1 ? 8 : HWY_TARGET == HWY_NEON || kVectors == 2 ? 6 : 2;

// Sums over [0, n_k) of R rows of x: [n_k][16] and P panels of w, panel_stride floats apart; added to y or, if first, stored.
template <int R, int P>
HWY_INLINE void sum_block(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, int64_t panel_stride, int64_t n_k, bool first,
                          float* HWY_RESTRICT y, int64_t stride) {
  const Tag d;
  V sum[R][P * kVectors];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < P * kVectors; ++v) sum[r][v] = hn::Zero(d);
  }
  for (int64_t k = 0; k < n_k; ++k) {
    V weights[P * kVectors];
    for (int p = 0; p < P; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        weights[p * kVectors + v] = hn::LoadU(d, w + p * panel_stride + k * kPanelWidth + v * kLanes);
      }
    }
    for (int r = 0; r < R; ++r) {
      const V value = hn::Set(d, x[k * kPanelWidth + r]);
      for (int v = 0; v < P * kVectors; ++v) sum[r][v] = hn::MulAdd(value, weights[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < P * kVectors; ++v) {
      float* out = y + r * stride + v * kLanes;
      hn::StoreU(first ? sum[r][v] : hn::Add(hn::LoadU(d, out), sum[r][v]), d, out);
    }
  }
}

// sum_block() where rows or outputs are missing: it goes through a block of its own, of which n_rows x n_outputs count.
template <int R, int P>
void sum_cut_block(const float* x, const float* w, int64_t panel_stride, int64_t n_k, bool first, int64_t n_rows, int64_t n_outputs,
                   float* y, int64_t stride) {
  HWY_ALIGN float block[R * P * kPanelWidth];
  sum_block<R, P>(x, w, panel_stride, n_k, true, block, P * kPanelWidth);
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t o = 0; o < n_outputs; ++o) {
      const float sum = block[r * P * kPanelWidth + o];
      y[r * stride + o] = first ? sum : y[r * stride + o] + sum;
    }
  }
}

template <int R, int P>
HWY_INLINE void any_block(const float* x, const float* w, int64_t panel_stride, int64_t n_k, bool first, int64_t n_rows, int64_t n_outputs,
                          float* y, int64_t stride) {
  if (n_rows >= R && n_outputs >= P * kPanelWidth) {
    sum_block<R, P>(x, w, panel_stride, n_k, first, y, stride);
  } else if (n_rows > 0) {
    sum_cut_block<R, P>(x, w, panel_stride, n_k, first, std::min<int64_t>(n_rows, R), std::min<int64_t>(n_outputs, P * kPanelWidth), y,
                        stride);
  }
}

// All rows of x with P panels.
template <int P>
void panels_block(const PackedMatrix& x, int64_t first_k, const float* w, int64_t panel_stride, int64_t n_k, bool first, int64_t n_outputs,
                  float* y, int64_t stride) {
  constexpr int kRest = static_cast<int>(kPanelWidth) % kRows;
  for (int64_t row = 0; row < x.n; row += kPanelWidth) {
    const float* panel = x.data + row * x.n_k + first_k * kPanelWidth;
    for (int64_t r = 0; r + kRows <= kPanelWidth; r += kRows) {
      any_block<kRows, P>(panel + r, w, panel_stride, n_k, first, x.n - row - r, n_outputs, y + (row + r) * stride, stride);
    }
    if constexpr (kRest > 0) {
      constexpr int64_t kDone = kPanelWidth - kRest;
      any_block<kRest, P>(panel + kDone, w, panel_stride, n_k, first, x.n - row - kDone, n_outputs, y + (row + kDone) * stride, stride);
    }
  }
}

void multiply_float(const PackedMatrix& x, const PackedMatrix& w, int64_t n_k, float* y, int64_t stride) {
  const int64_t panel_stride = w.n_k * kPanelWidth;
  for (int64_t k = 0; k < n_k; k += kSumBlock) {
    const int64_t n = std::min(kSumBlock, n_k - k);
    int64_t output = 0;
    for (; output + (kPanels - 1) * kPanelWidth < w.n; output += kPanels * kPanelWidth) {
      panels_block<kPanels>(x, k, w.data + output * w.n_k + k * kPanelWidth, panel_stride, n, k == 0, w.n - output, y + output, stride);
    }
    for (; output < w.n; output += kPanelWidth) {
      panels_block<1>(x, k, w.data + output * w.n_k + k * kPanelWidth, panel_stride, n, k == 0, w.n - output, y + output, stride);
    }
  }
}

// Four rows of n_k steps (a multiple of four) to lanes of a panel: blocks of 4 x 4 are transposed in registers.
#if HWY_TARGET == HWY_SCALAR
constexpr int64_t kBlock = 1;
HWY_INLINE void pack_block_rows(const float* in, int64_t, int64_t n_k, float* out) {
  for (int64_t k = 0; k < n_k; ++k) out[k * kPanelWidth] = in[k];
}
#else
constexpr int64_t kBlock = 4;
HWY_INLINE void pack_block_rows(const float* in, int64_t stride, int64_t n_k, float* out) {
  const hn::CappedTag<float, kBlock> d;
  for (int64_t k = 0; k < n_k; k += kBlock) {
    const auto a = hn::LoadU(d, in + k), b = hn::LoadU(d, in + k + stride);
    const auto c = hn::LoadU(d, in + k + 2 * stride), e = hn::LoadU(d, in + k + 3 * stride);
    const auto ac0 = hn::InterleaveLower(d, a, c), ac1 = hn::InterleaveUpper(d, a, c);
    const auto be0 = hn::InterleaveLower(d, b, e), be1 = hn::InterleaveUpper(d, b, e);
    float* to = out + k * kPanelWidth;
    hn::StoreU(hn::InterleaveLower(d, ac0, be0), d, to);
    hn::StoreU(hn::InterleaveUpper(d, ac0, be0), d, to + kPanelWidth);
    hn::StoreU(hn::InterleaveLower(d, ac1, be1), d, to + 2 * kPanelWidth);
    hn::StoreU(hn::InterleaveUpper(d, ac1, be1), d, to + 3 * kPanelWidth);
  }
}
#endif

void pack_panels_float(const Rows& rows, int64_t n_k, float* out) {
  const int64_t whole = rows.n_columns / kBlock * kBlock;
  for (int64_t first = 0; first < rows.n_rows; first += kPanelWidth, out += n_k * kPanelWidth) {
    std::fill(out + rows.n_columns * kPanelWidth, out + n_k * kPanelWidth, 0.0f);
    const int64_t n = std::min(kPanelWidth, rows.n_rows - first), in_blocks = n / kBlock * kBlock;
    for (int64_t row = 0; row < in_blocks; row += kBlock) {
      pack_block_rows(rows.data + (first + row) * rows.stride, rows.stride, whole, out + row);
    }
    for (int64_t row = 0; row < kPanelWidth; ++row) {
      const float* in = rows.data + (first + row) * rows.stride;
      for (int64_t k = row < in_blocks ? whole : 0; k < rows.n_columns; ++k) out[k * kPanelWidth + row] = row < n ? in[k] : 0.0f;
    }
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
HWY_EXPORT(multiply_float);
HWY_EXPORT(pack_panels_float);
void multiply_float(const PackedMatrix& x, const PackedMatrix& w, int64_t n_k, float* y, int64_t stride) noexcept {
  HWY_DYNAMIC_DISPATCH(multiply_float)(x, w, n_k, y, stride);
}
void pack_panels_float(const Rows& rows, int64_t n_k, float* out) noexcept { HWY_DYNAMIC_DISPATCH(pack_panels_float)(rows, n_k, out); }
PackedMatrix pack_rows_float(const Rows& rows, float* out) noexcept {
  pack_panels_float(rows, padded_k(rows.n_columns), out);
  return {out, rows.n_rows, padded_k(rows.n_columns)};
}
}  // namespace quern
#endif
