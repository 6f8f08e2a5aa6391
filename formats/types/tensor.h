#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "formats/types/dtype.h"

namespace quern {

// Up to 4 dimensions, outermost first, as in safetensors and numpy. GGUF stores the same bytes innermost first; its reader
// and writer reverse at the file boundary and nobody else thinks about it. Rank 0 is a scalar with one element.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);  // throws kFormat on rank > 4 or a negative dimension

  int rank() const noexcept { return rank_; }
  int64_t operator[](int i) const noexcept { return dims_[static_cast<size_t>(i)]; }
  std::span<const int64_t> dims() const noexcept { return {dims_.data(), static_cast<size_t>(rank_)}; }

  int64_t row_length() const noexcept { return rank_ == 0 ? 1 : dims_[static_cast<size_t>(rank_ - 1)]; }
  int64_t n_elements() const;  // product, checked
  int64_t n_rows() const;      // n_elements / row_length; a vector is one row

  bool operator==(const Shape& other) const noexcept;
  std::string to_string() const;  // "[256, 7168]"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// One stored tensor of a file.
struct TensorInfo {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t file_offset = 0;  // from the start of the file
  uint64_t size_bytes = 0;
};

// Bytes of one row / of a tensor of this type and shape. Throws kFormat when the row is not a whole number of blocks.
uint64_t row_size_bytes(DType dtype, int64_t row_length);
uint64_t tensor_size_bytes(DType dtype, const Shape& shape);

}  // namespace quern
