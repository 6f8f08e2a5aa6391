#include "runtime/panel_product.h"

#include <array>
#include <cmath>

namespace quern {

void panel_product_plain(const PanelMatrix& w, const float* x, int64_t n_k, float* out) noexcept {
  for (int64_t o = 0; o < w.n_rows; ++o) {
    std::array<double, kPanelWidth> sum{};
    const float* row = w.data + o * w.row_stride;
    for (int64_t k = 0; k < n_k; ++k) {
      const double weight = row[k * w.column_stride];
      for (size_t lane = 0; lane < kPanelWidth; ++lane)
        sum[lane] += weight * static_cast<double>(x[static_cast<size_t>(k) * kPanelWidth + lane]);
    }
    for (size_t lane = 0; lane < kPanelWidth; ++lane) out[static_cast<size_t>(o) * kPanelWidth + lane] = static_cast<float>(sum[lane]);
  }
}

double fast_product_bound(int64_t n_k) noexcept {
  const auto in_block = static_cast<double>(n_k < kSumBlock ? n_k : kSumBlock);
  const auto n_blocks = static_cast<double>((n_k + kSumBlock - 1) / kSumBlock);
  return 1.01 * (in_block + n_blocks + 1.0) * std::ldexp(1.0, -24);
}

void pack_panel(const float* rows, int64_t n_rows, int64_t n_columns, int64_t stride, float* panel) noexcept {
  for (int64_t lane = 0; lane < kPanelWidth; ++lane) {
    float* out = panel + lane;
    if (lane >= n_rows) {
      for (int64_t k = 0; k < n_columns; ++k) out[k * kPanelWidth] = 0.0f;
      continue;
    }
    const float* row = rows + lane * stride;
    for (int64_t k = 0; k < n_columns; ++k) out[k * kPanelWidth] = row[k];
  }
}

void unpack_panel(const float* panel, int64_t n_rows, int64_t n_columns, float* out, int64_t stride) noexcept {
  for (int64_t lane = 0; lane < n_rows; ++lane) {
    float* row = out + lane * stride;
    for (int64_t k = 0; k < n_columns; ++k) row[k] = panel[k * kPanelWidth + lane];
  }
}

PackedRows::PackedRows(const float* rows, int64_t n_rows, int64_t n_columns, int64_t stride) : n_rows_(n_rows), n_columns_(n_columns) {
  data_.resize(static_cast<size_t>(n_panels() * kPanelWidth * n_columns));
  for (int64_t p = 0; p < n_panels(); ++p) {
    const int64_t first = p * kPanelWidth;
    const int64_t n = n_rows - first < kPanelWidth ? n_rows - first : kPanelWidth;
    pack_panel(rows + first * stride, n, n_columns, stride, data_.data() + p * kPanelWidth * n_columns);
  }
}

}  // namespace quern
