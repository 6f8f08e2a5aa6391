#include "quantize/tensor_encoder.h"

#include <algorithm>

#include "quantize/feedback/unbiased.h"

// Rows that are encoded together may belong to several slices of a tensor (experts), each with an importance of its own, and with
// feedback also with statistics of its own, which need not divide the tensor in the same way. So the rows are cut wherever either kind of
// slice ends, and each piece goes to the encoder that knows most about it.

namespace quern {

int64_t TensorEncoder::rows_per_slice(size_t tensor) const noexcept {
  const int64_t n_rows = source_.tensors()[tensor].shape.n_rows();
  return importance_ == nullptr ? n_rows : n_rows / importance_->n_slices(tensor);
}

std::span<const float> TensorEncoder::importance(size_t tensor, int64_t row) const noexcept {
  return importance_ == nullptr ? std::span<const float>() : importance_->columns(tensor, row / rows_per_slice(tensor));
}

double TensorEncoder::error(size_t tensor, DType type, int64_t row, std::span<const float> w, std::span<const float> y) const {
  const int64_t fed_slices = feedback_ != nullptr ? feedback_->n_slices(tensor, type) : 0;
  if (fed_slices > 0) {
    const int64_t fed_rows = source_.tensors()[tensor].shape.n_rows() / fed_slices;
    if (const std::optional<double> error = feedback_->error(tensor, row / fed_rows, w, y)) return *error;
  }
  const std::span<const float> h = importance(tensor, row);
  double sum = 0.0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double difference = static_cast<double>(w[i]) - static_cast<double>(y[i]);
    sum += (h.empty() ? 1.0 : static_cast<double>(h[i])) * difference * difference;
  }
  return sum;
}

void TensorEncoder::encode(size_t tensor, DType type, int64_t first_row, int64_t n_rows, std::span<const float> weights,
                           std::span<std::byte> out) const {
  const Shape& shape = source_.tensors()[tensor].shape;
  const int64_t n_columns = shape.row_length(), slice_rows = rows_per_slice(tensor);
  const int64_t fed_slices = feedback_ != nullptr ? feedback_->n_slices(tensor, type) : 0;
  const int64_t fed_rows = fed_slices > 0 ? shape.n_rows() / fed_slices : shape.n_rows();
  const auto row_bytes = static_cast<int64_t>(row_size_bytes(type, n_columns));
  for (int64_t row = first_row, end = first_row; row < first_row + n_rows; row = end) {
    end = std::min({(row / slice_rows + 1) * slice_rows, (row / fed_rows + 1) * fed_rows, first_row + n_rows});
    const auto part = [&](auto all, int64_t unit) {
      return all.subspan(static_cast<size_t>((row - first_row) * unit), static_cast<size_t>((end - row) * unit));
    };
    const std::span<const float> x = part(weights, n_columns);
    const std::span<std::byte> blocks = part(out, row_bytes);
    if (fed_slices > 0) {
      feedback_->encode(tensor, row / fed_rows, type, x, end - row, importance(tensor, row), effort_, blocks, log_);
    } else {
      encode_rows_unbiased(type, x, end - row, n_columns, importance(tensor, row), blocks, effort_);
    }
  }
}

}  // namespace quern
