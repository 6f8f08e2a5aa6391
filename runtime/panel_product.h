#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace quern {

// The one kernel of the runtime. Linear layers, attention scores and attention outputs are all products of a matrix with 16 vectors at
// a time, so one loop with one documented order of operations serves them all:
//
//   out[o][lane] = sum over k of w[o * row_stride + k * column_stride] * x[k][lane]
//
// Lanes are tokens (queries), never positions in the sum: every lane adds its products one after the other, k ascending. The result
// of a lane therefore does not depend on the vector width, on the other lanes, on how many rows are computed together or on threads.
// Sums are cut into blocks of 256 products; block sums are added in order to a second accumulator, which bounds the rounding error by
// about (256 + n_k / 256) * 2^-24 * sum |w x| instead of n_k * 2^-24.
inline constexpr int64_t kPanelWidth = 16;
inline constexpr int64_t kSumBlock = 256;

struct PanelMatrix {
  const float* data = nullptr;
  int64_t n_rows = 0;
  int64_t row_stride = 0;     // in floats
  int64_t column_stride = 1;  // in floats; not 1 when a stored matrix is used transposed
};

// x: [n_k][16], out: [n_rows][16]. noexcept kernels: the caller has checked the shapes.
using PanelProduct = void (*)(const PanelMatrix& w, const float* x, int64_t n_k, float* out) noexcept;

// The oracle: products and sums in double, k ascending, rounded to float once.
void panel_product_plain(const PanelMatrix& w, const float* x, int64_t n_k, float* out) noexcept;

// f32 with fused multiply-add where the CPU has it (AVX2, AVX-512 and NEON give the same bits; CPUs without FMA round products too).
void panel_product_fast(const PanelMatrix& w, const float* x, int64_t n_k, float* out) noexcept;

// |fast - exact| <= fast_product_bound(n_k) * sum_k |w_k x_k|: one rounding per fused step inside a block, one per block added, and
// one more per product for CPUs without FMA, each at most 2^-24 relative; second-order terms are covered by the factor 1.01.
double fast_product_bound(int64_t n_k) noexcept;

// Rows of activations regrouped for the kernel: panel p holds rows 16p .. 16p+15 as [n_columns][16], missing rows as zeros.
class PackedRows {
 public:
  PackedRows() = default;
  // rows: n_rows x n_columns, row i at rows + i * stride (in floats).
  PackedRows(const float* rows, int64_t n_rows, int64_t n_columns, int64_t stride);
  // From what panels() gave: [n_panels][n_columns][16].
  PackedRows(std::vector<float> panels, int64_t n_rows, int64_t n_columns)
      : n_rows_(n_rows), n_columns_(n_columns), data_(std::move(panels)) {}

  int64_t n_rows() const noexcept { return n_rows_; }
  int64_t n_columns() const noexcept { return n_columns_; }
  int64_t n_panels() const noexcept { return (n_rows_ + kPanelWidth - 1) / kPanelWidth; }
  const float* panel(int64_t p) const noexcept { return data_.data() + p * kPanelWidth * n_columns_; }
  const std::vector<float>& panels() const noexcept { return data_; }

 private:
  int64_t n_rows_ = 0;
  int64_t n_columns_ = 0;
  std::vector<float> data_;
};

// Regroups n_rows <= 16 rows into panel: [n_columns][16].
void pack_panel(const float* rows, int64_t n_rows, int64_t n_columns, int64_t stride, float* panel) noexcept;
// out row i at out + i * stride gets lane i of panel: [n_columns][16], for i < n_rows.
void unpack_panel(const float* panel, int64_t n_rows, int64_t n_columns, float* out, int64_t stride) noexcept;

}  // namespace quern
