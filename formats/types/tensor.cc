#include "formats/types/tensor.h"

#include <algorithm>

#include "formats/base/checked.h"

namespace quern {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > static_cast<size_t>(kMaxRank)) {
    throw Error(ErrorKind::kFormat, "rank " + std::to_string(dims.size()) + " is larger than 4");
  }
  for (const int64_t dim : dims) {
    if (dim < 0) throw Error(ErrorKind::kFormat, "negative dimension " + std::to_string(dim));
    dims_[static_cast<size_t>(rank_++)] = dim;
  }
}

int64_t Shape::n_elements() const {
  int64_t product = 1;
  for (const int64_t dim : dims()) product = checked_mul(product, dim, "number of elements");
  return product;
}

int64_t Shape::n_rows() const { return row_length() == 0 ? 0 : n_elements() / row_length(); }

bool Shape::operator==(const Shape& other) const noexcept { return std::ranges::equal(dims(), other.dims()); }

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i == 0 ? "" : ", ") + std::to_string((*this)[i]);
  return text + "]";
}

uint64_t row_size_bytes(DType dtype, int64_t row_length) {
  const DTypeTraits& t = traits(dtype);
  if (row_length % t.block_weights != 0) {
    throw Error(ErrorKind::kFormat, "row length " + std::to_string(row_length) + " is not a multiple of " +
                                        std::to_string(t.block_weights) + ", the block size of " + std::string(t.name));
  }
  return checked_mul(static_cast<uint64_t>(row_length / t.block_weights), static_cast<uint64_t>(t.block_bytes), "row size");
}

uint64_t tensor_size_bytes(DType dtype, const Shape& shape) {
  return checked_mul(row_size_bytes(dtype, shape.row_length()), static_cast<uint64_t>(shape.n_rows()), "tensor size");
}

}  // namespace quern
