#include "runtime/norm.h"

#include <cmath>

namespace quern {

double inverse_rms(const float* x, int64_t n, double eps) noexcept {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return 1.0 / std::sqrt(sum / static_cast<double>(n) + eps);
}

void rms_norm(const float* x, const float* weight, int64_t n, double eps, float* out) noexcept {
  const double scale = inverse_rms(x, n, eps);
  for (int64_t i = 0; i < n; ++i) {
    const double normal = static_cast<double>(x[i]) * scale;
    out[i] = static_cast<float>(weight == nullptr ? normal : normal * static_cast<double>(weight[i]));
  }
}

}  // namespace quern
