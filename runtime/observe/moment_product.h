#pragma once

#include <cstdint>

namespace quern {

// Rows are cut into columns of this many, so that a tile of A^T B is made of two short runs of memory.
inline constexpr int64_t kMomentTile = 16;

// out[i * 16 + j] = sum over t < n_rows of a[t * 16 + i] * b[t * 16 + j], t ascending in float, products rounded: the same bits on every
// CPU.
void moment_tile(const float* a, const float* b, int64_t n_rows, float* out) noexcept;

}  // namespace quern
