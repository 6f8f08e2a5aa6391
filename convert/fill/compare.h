#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/base/exact_sum.h"
#include "formats/types/dtype.h"

namespace quern {

// Adds the energy (sum of squares) of every row. Returns the first row that holds a NaN or an infinity, or -1.
int64_t add_energy(std::span<const float> weights, int64_t row_length, ExactSum& energy);

// Weights that came out far smaller than they are, because the values or scales of a type are binary16, which ends at 65504.
struct Cut {
  int64_t n = 0;
  double largest = 0;  // of the originals, by magnitude

  void add(const Cut& other) noexcept;
};

// What encoding did to some rows.
struct Comparison {
  ExactSum squared_error;
  bool exact = true;           // every decoded weight has the bits of the original
  int64_t nonfinite_row = -1;  // first row that decodes to a NaN or an infinity
  Cut cut;
};

// Decodes `blocks`, which are `weights` encoded as `dtype`, and compares. Works in pieces of a fixed size.
Comparison compare_encoded(DType dtype, std::span<const std::byte> blocks, std::span<const float> weights, int64_t row_length);

}  // namespace quern
