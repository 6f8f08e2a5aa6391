#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quern {

// What a calibration text says about the inputs x of a linear layer beyond their sizes: the mean of x x^T.
struct SecondMoment {
  int64_t n_columns = 0;
  int64_t n_rows = 0;       // inputs seen
  double fourth = 0;        // sum over them of |x|^4: how uncertain the mean is
  std::vector<float> half;  // lower triangle by rows: element (i, j <= i) at i (i + 1) / 2 + j; zeros when n_rows is 0
};

constexpr size_t half_position(int64_t i, int64_t j) noexcept { return static_cast<size_t>(i * (i + 1) / 2 + j); }

}  // namespace quern
