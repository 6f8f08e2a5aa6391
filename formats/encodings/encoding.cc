#include "formats/encodings/encoding.h"

namespace quern::encodings {

using safetensors::StoredTensor;

void EncodedTensor::add(const Plane& plane) {
  QUERN_CHECK(n_planes < kMaxPlanes);
  plane_array[n_planes++] = plane;
}

std::string with_ending(std::string_view name, std::string_view ending, std::string_view by) {
  if (!name.ends_with(ending)) return {};
  return std::string(name.substr(0, name.size() - ending.size())).append(by);
}

const StoredTensor* find_companion(const Wanted& wanted, std::span<const Companion> names) {
  for (const Companion& companion : names) {
    const std::string name = with_ending(wanted.name, companion.weights_ending, companion.ending);
    if (name.empty()) continue;
    if (const StoredTensor* found = wanted.checkpoint.find(name)) return found;
  }
  return nullptr;
}

int64_t matrix_rows(const Shape& shape) noexcept { return shape.rank() >= 2 ? shape[shape.rank() - 2] : 1; }

Shape with_matrix(const Shape& shape, int64_t rows, int64_t cols) {
  return shape.rank() == 3 ? Shape{shape[0], rows, cols} : Shape{rows, cols};
}

EncodedTensor row_by_row(const StoredTensor& stored, const Shape& shape) {
  EncodedTensor tensor;
  tensor.n_slices = shape.rank() == 3 ? shape[0] : 1;
  tensor.rows = matrix_rows(shape);
  tensor.cols = shape.row_length();
  const uint64_t row_bytes = stored.size_bytes / static_cast<uint64_t>(tensor.n_slices * tensor.rows);
  tensor.add({.tensor = &stored, .unit_bytes = row_bytes, .n_units = tensor.rows});
  return tensor;
}

std::nullopt_t report_shape(const StoredTensor& stored, const Shape& expected, Problems& problems) {
  problems.add(ErrorKind::kFormat,
               in_quotes(stored.name) + " has shape " + stored.shape.to_string() + ", expected " + expected.to_string());
  return std::nullopt;
}

std::optional<EncodedTensor> with_block_scales(EncodedTensor tensor, const Shape& shape, const StoredTensor& scales, int64_t block_rows,
                                               int64_t block_cols, Problems& problems) {
  const auto blocks_in = [](int64_t n, int64_t block) { return (n + block - 1) / block; };
  const int64_t scale_rows = blocks_in(tensor.rows, block_rows);
  const int64_t scale_cols = blocks_in(tensor.cols, block_cols);
  if (!is_scale_type(scales.dtype)) {
    problems.add(ErrorKind::kFormat, in_quotes(scales.name) + " is " + std::string(name_of(scales.dtype)) + ", not a scale type");
    return std::nullopt;
  }
  const Shape expected = with_matrix(shape, scale_rows, scale_cols);
  if (scales.shape != expected) return report_shape(scales, expected, problems);
  tensor.block_cols = block_cols;
  tensor.tile_rows = block_rows;
  tensor.add({.tensor = &scales, .unit_rows = block_rows, .unit_bytes = row_size_bytes(scales.dtype, scale_cols), .n_units = scale_rows});
  return tensor;
}

bool is_scale_type(DType dtype) noexcept { return dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16 || is_e8m0(dtype); }

bool is_e8m0(DType dtype) noexcept { return dtype == DType::F8_E8M0 || dtype == DType::U8; }

}  // namespace quern::encodings
