#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "convert/plan/plan.h"
#include "formats/base/error.h"

namespace quern {

// The tensor data of one output as a stream: tensors in file order, without padding. advance() takes the next bytes of it and
// hands them on in pieces that lie in one tensor, or in one slice of a tensor.
class TensorStream {
 public:
  enum class Cut { kTensors, kSlices };

  struct Piece {
    size_t tensor;
    uint64_t offset;  // of the piece, from the start of the tensor
    std::span<const std::byte> bytes;
    bool ends_unit;  // the piece ends a slice (kSlices) or a tensor (kTensors)
    bool ends_tensor;
  };

  TensorStream(const Plan& plan, const PlannedOutput& output, Cut cut) : plan_(plan), output_(output), cut_(cut) {}

  template <typename Visit>
  void advance(std::span<const std::byte> bytes, Visit&& visit) {
    while (!bytes.empty()) {
      QUERN_CHECK(tensor_ < output_.tensors.size());
      const uint64_t size = output_.tensors[tensor_].size_bytes;
      const uint64_t unit = cut_ == Cut::kSlices ? size / static_cast<uint64_t>(plan_.tensors[tensor_].n_slices) : size;
      const uint64_t n = std::min<uint64_t>(unit - offset_ % unit, bytes.size());
      const bool ends_tensor = offset_ + n == size;
      visit(Piece{tensor_, offset_, bytes.first(static_cast<size_t>(n)), (offset_ + n) % unit == 0, ends_tensor});
      bytes = bytes.subspan(static_cast<size_t>(n));
      offset_ = ends_tensor ? 0 : offset_ + n;
      tensor_ += ends_tensor ? 1 : 0;
    }
  }

  bool complete() const noexcept { return tensor_ == output_.tensors.size(); }

 private:
  const Plan& plan_;
  const PlannedOutput& output_;
  Cut cut_;
  size_t tensor_ = 0;
  uint64_t offset_ = 0;
};

}  // namespace quern
