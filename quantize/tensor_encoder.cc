#include "quantize/tensor_encoder.h"

#include <algorithm>

namespace quern {

int64_t TensorEncoder::rows_per_slice(size_t tensor) const noexcept {
  const int64_t n_rows = source_.tensors()[tensor].shape.n_rows();
  return importance_ == nullptr ? n_rows : n_rows / importance_->n_slices(tensor);
}

std::span<const float> TensorEncoder::importance(size_t tensor, int64_t row) const noexcept {
  return importance_ == nullptr ? std::span<const float>() : importance_->columns(tensor, row / rows_per_slice(tensor));
}

void TensorEncoder::encode(size_t tensor, DType type, int64_t first_row, int64_t n_rows, std::span<const float> weights,
                           std::span<std::byte> out) const {
  const int64_t n_columns = source_.tensors()[tensor].shape.row_length(), slice_rows = rows_per_slice(tensor);
  const auto row_bytes = static_cast<int64_t>(row_size_bytes(type, n_columns));
  for (int64_t row = first_row, end = first_row; row < first_row + n_rows; row = end) {
    end = std::min((row / slice_rows + 1) * slice_rows, first_row + n_rows);
    const auto at = [&](int64_t unit) { return static_cast<size_t>((row - first_row) * unit); };
    const auto n = [&](int64_t unit) { return static_cast<size_t>((end - row) * unit); };
    encode_rows(type, weights.subspan(at(n_columns), n(n_columns)), end - row, n_columns, importance(tensor, row),
                out.subspan(at(row_bytes), n(row_bytes)), effort_);
  }
}

}  // namespace quern
