#include <cstring>

#include "formats/base/bytes.h"
#include "formats/encodings/encoding.h"
#include "formats/types/decode.h"

// Weights as they are: F64 F32 F16 BF16, F8_E5M2 without scales (its range covers weights as they are; e4m3's does not), and tables of
// I64 or I32.

namespace quern::encodings {
namespace {

DType dtype_of(const EncodedTensor& tensor) { return tensor.codes().tensor->dtype; }

bool claims(const Wanted& wanted) { return wanted.stored != nullptr; }

std::optional<EncodedTensor> find(const Wanted& wanted, const Shape& shape, Problems& problems) {
  using enum DType;
  const safetensors::StoredTensor& stored = *wanted.stored;
  switch (stored.dtype) {
    case F64:
    case F32:
    case F16:
    case BF16:
    case F8_E5M2:
    case I64:
    case I32:
      break;
    default:
      problems.add(ErrorKind::kFormat, in_quotes(stored.name) + " is " + std::string(name_of(stored.dtype)) + ", which is no weight type");
      return std::nullopt;
  }
  if (stored.shape != shape) return report_shape(stored, shape, problems);
  return row_by_row(stored, shape);
}

DType source_type(const EncodedTensor& tensor) {
  switch (dtype_of(tensor)) {
    case DType::F8_E5M2:
      return DType::BF16;
    case DType::F64:
      return DType::F32;
    case DType::I64:
      return DType::I32;
    default:
      return dtype_of(tensor);
  }
}

bool can_copy(const safetensors::Checkpoint&, const EncodedTensor& tensor) {
  return dtype_of(tensor) != DType::F64 && dtype_of(tensor) != DType::F8_E5M2;
}

Exactness exactness(const safetensors::Checkpoint&, const EncodedTensor& tensor) {
  if (dtype_of(tensor) == DType::F64) {
    return {std::nullopt,
            in_quotes(tensor.codes().tensor->name) + " is F64; F32 moves a weight by at most 2^-24 of its size, BF16 by at most 2^-8"};
  }
  return {source_type(tensor), {}};
}

void decode_f64(const std::byte* from, std::span<float> out) noexcept {
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(load_le<double>(from + 8 * i));
}

void decode(const EncodedTensor& tensor, const Tile& tile, int64_t first_row, int64_t n_rows, float* out, int64_t out_stride) {
  const DType dtype = dtype_of(tensor);
  const bool as_one = out_stride == tensor.cols;  // rows that stand together, here and there
  const int64_t step = as_one ? n_rows : 1;
  for (int64_t row = 0; row < n_rows; row += step) {
    const std::byte* from = tile.unit(tensor, 0, first_row + row);
    const std::span<float> to(out + row * out_stride, static_cast<size_t>(step * tensor.cols));
    if (dtype == DType::F64) {
      decode_f64(from, to);
    } else {
      decode_blocks(dtype, {from, static_cast<uint64_t>(step) * tensor.codes().unit_bytes}, to);
    }
  }
}

bool narrow_i64(const std::byte* from, int64_t n, std::byte* out) noexcept {
  bool fits = true;
  for (int64_t i = 0; i < n; ++i) {
    const auto value = load_le<int64_t>(from + 8 * i);
    const auto narrow = static_cast<int32_t>(value);
    fits &= narrow == value;
    store_le(out + 4 * i, narrow);
  }
  return fits;
}

BadRow copy(const EncodedTensor& tensor, const Tile& tile, int64_t first_row, int64_t n_rows, std::byte* out, uint64_t out_stride_bytes) {
  const DType dtype = dtype_of(tensor);
  const uint64_t row_bytes = tensor.codes().unit_bytes;
  for (int64_t row = first_row; row < first_row + n_rows; ++row, out += out_stride_bytes) {
    const std::byte* from = tile.unit(tensor, 0, row);
    if (dtype == DType::I64) {
      if (!narrow_i64(from, tensor.cols, out)) return {row, "a value outside the range of I32"};
      continue;
    }
    std::memcpy(out, from, row_bytes);
    if (dtype != DType::I32 && find_nonfinite_block(dtype, {from, row_bytes}) >= 0) return {row, kNonfinite};
  }
  return {};
}

}  // namespace

extern const Encoding kPlain;
const Encoding kPlain = {.methods = {},
                         .companions = {},
                         .check_config = nullptr,
                         .promise = nullptr,
                         .claims = claims,
                         .find = find,
                         .source_type = source_type,
                         .can_copy = can_copy,
                         .exactness = exactness,
                         .decode = decode,
                         .copy = copy};

}  // namespace quern::encodings
