#pragma once

#include <cstdint>

namespace quern {

// out[i][j] += sum over t < n_rows of a[t * n + first + i] * b[t * n + j] for i < n_i <= kMomentRows and j < n_j: some rows of A^T B. Sums
// of up to 256 rows are taken in float, t ascending, products rounded, and added to out in double: the same bits on every CPU.
inline constexpr int64_t kMomentRows = 4;
void add_moment_rows(const float* a, const float* b, int64_t n_rows, int64_t n, int64_t first, int64_t n_i, int64_t n_j,
                     double* const* out) noexcept;

}  // namespace quern
