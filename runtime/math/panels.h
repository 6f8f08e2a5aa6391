#pragma once

#include <cstdint>

namespace quern {

// What the kernels behind product.h work on, and the sizes that their order of operations is made of.

inline constexpr int64_t kPanelWidth = 16;
inline constexpr int64_t kSumBlock = 256;  // products in one sum of kFloat
inline constexpr int64_t kStep = 32;       // products of one tile instruction; packed rows are padded to it with zeros

// Rows of floats as they lie in memory: row i at data + i * stride.
struct Rows {
  const float* data = nullptr;
  int64_t n_rows = 0;
  int64_t n_columns = 0;
  int64_t stride = 0;

  Rows slice(int64_t first, int64_t n) const noexcept { return {data + first * stride, n, n_columns, stride}; }
};

// Rows laid out for a kernel, 16 in a panel, by the functions of that kernel. Panels follow one another and are 16 * n_k floats large,
// and what belongs to k begins at 16 * k (k a multiple of kStep), whatever a kernel keeps there.
struct PackedMatrix {
  const float* data = nullptr;
  int64_t n = 0;       // rows of x, or outputs of w
  int64_t n_k = 0;     // a multiple of kStep
  bool exact = false;  // weights only: nothing is lost in their first part (kTiles)

  PackedMatrix from_row(int64_t first) const noexcept { return {data + first * n_k, n - first, n_k, exact}; }  // a multiple of 16
  PackedMatrix from_k(int64_t first) const noexcept {
    return {data + first * kPanelWidth, n, n_k, exact};
  }  // of kStep; n_k stays the pitch
};

constexpr int64_t padded_k(int64_t n_k) noexcept { return (n_k + kStep - 1) / kStep * kStep; }
// Floats that a packed matrix takes; its memory begins on a cache line.
constexpr int64_t packed_floats(int64_t n, int64_t n_k) noexcept {
  return (n + kPanelWidth - 1) / kPanelWidth * kPanelWidth * padded_k(n_k);
}

}  // namespace quern
