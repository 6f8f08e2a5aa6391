#pragma once

#include <cstdint>

namespace quern {

// out[c] -= sum over k of row[k] b[k * kFactorBlock + c], k ascending, in double, products rounded: the same bits on every CPU.
inline constexpr int64_t kFactorBlock = 64;
void subtract_product(const float* row, const double* b, int64_t n_k, double* out) noexcept;

}  // namespace quern
