#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/math/product_float.h"

namespace quern {

// Rows of activations as observers see them: panel p holds rows 16p .. 16p+15 as [n_columns][16], missing rows as zeros.
class PackedRows {
 public:
  PackedRows() = default;
  // rows: n_rows x n_columns, row i at rows + i * stride (in floats).
  PackedRows(const float* rows, int64_t n_rows, int64_t n_columns, int64_t stride)
      : n_rows_(n_rows), n_columns_(n_columns), data_(static_cast<size_t>(n_panels() * kPanelWidth * n_columns)) {
    pack_panels_float({rows, n_rows, n_columns, stride}, n_columns, data_.data());
  }
  // Takes back what panels() gave: [n_panels][n_columns][16].
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

}  // namespace quern
