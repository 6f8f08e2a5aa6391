#pragma once

#include <cstdint>

namespace quern {

// 1 / sqrt(mean of squares + eps); the mean in double, in index order.
double inverse_rms(const float* x, int64_t n, double eps) noexcept;

// out[i] = weight[i] * x[i] * inverse_rms(x); weight nullptr means ones. out may be x.
void rms_norm(const float* x, const float* weight, int64_t n, double eps, float* out) noexcept;

}  // namespace quern
