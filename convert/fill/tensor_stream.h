#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "convert/plan/plan.h"
#include "formats/base/error.h"

namespace quern {

// The tensor data of one output as a stream: the blocks of its tensors in file order, without padding. advance() takes the next bytes of
// it and hands them on in pieces that lie in one tensor.
class TensorStream {
 public:
  struct Piece {
    size_t tensor;
    uint64_t offset;  // of the piece, from the start of the tensor
    std::span<const std::byte> bytes;
    bool ends_tensor;
  };

  explicit TensorStream(const PlannedOutput& output) : output_(output) {}

  template <typename Visit>
  void advance(std::span<const std::byte> bytes, Visit&& visit) {
    while (!bytes.empty()) {
      const uint64_t n = std::min<uint64_t>(left_in_tensor(), bytes.size());
      visit(Piece{tensor_, offset_, bytes.first(static_cast<size_t>(n)), n == left_in_tensor()});
      bytes = bytes.subspan(static_cast<size_t>(n));
      pass(n);
    }
  }

  // Passes over what was seen before.
  void skip(uint64_t n_bytes) {
    while (n_bytes > 0) {
      const uint64_t n = std::min(left_in_tensor(), n_bytes);
      n_bytes -= n;
      pass(n);
    }
  }

  bool complete() const noexcept { return tensor_ == output_.tensors.size(); }

 private:
  uint64_t left_in_tensor() const {
    QUERN_CHECK(tensor_ < output_.tensors.size());
    return output_.tensors[tensor_].size_bytes - offset_;
  }

  void pass(uint64_t n) {
    offset_ += n;
    if (offset_ < output_.tensors[tensor_].size_bytes) return;
    offset_ = 0;
    ++tensor_;
  }

  const PlannedOutput& output_;
  size_t tensor_ = 0;
  uint64_t offset_ = 0;
};

}  // namespace quern
