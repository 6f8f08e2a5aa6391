#include "runtime/blocks/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "formats/base/error.h"

namespace quern {
namespace {

// The pair index at which a frequency turns `rotations` times within the original context.
double yarn_bound(const RopeParams& rope, double rotations) {
  return static_cast<double>(rope.n_dims) * std::log(rope.original_context / (2.0 * std::numbers::pi * rotations)) /
         (2.0 * std::log(rope.freq_base));
}

}  // namespace

std::vector<double> rope_frequencies(const RopeParams& rope, std::span<const float> freq_factors) {
  const int64_t n_pairs = rope.n_dims / 2;
  QUERN_CHECK(freq_factors.empty() || static_cast<int64_t>(freq_factors.size()) == n_pairs);
  double low = 0.0, high = 0.0;
  if (rope.yarn) {
    low = yarn_bound(rope, rope.beta_fast);
    high = yarn_bound(rope, rope.beta_slow);
    if (rope.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(rope.n_dims - 1));
    if (low == high) high += 0.001;
  }
  std::vector<double> frequencies(static_cast<size_t>(n_pairs));
  for (int64_t i = 0; i < n_pairs; ++i) {
    const double base = std::pow(rope.freq_base, -2.0 * static_cast<double>(i) / static_cast<double>(rope.n_dims));
    const double ramp = rope.yarn ? std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0) : 1.0;
    const double f = base / rope.factor * ramp + base * (1.0 - ramp);
    frequencies[static_cast<size_t>(i)] = freq_factors.empty() ? f : f / static_cast<double>(freq_factors[static_cast<size_t>(i)]);
  }
  return frequencies;
}

RopeTable::RopeTable(const RopeParams& rope, std::span<const double> frequencies, int64_t first_position, int64_t n_positions, int64_t step)
    : pairing_(rope.pairing), n_pairs_(static_cast<int64_t>(frequencies.size())) {
  const auto n = static_cast<size_t>(n_positions * n_pairs_);
  cos_.resize(n);
  sin_.resize(n);
  for (size_t i = 0; i < n; ++i) {
    const auto index = static_cast<int64_t>(i) / n_pairs_;
    const double angle = static_cast<double>(first_position + index * step) * frequencies[i % frequencies.size()];
    cos_[i] = static_cast<float>(rope.magnitude * std::cos(angle));
    sin_[i] = static_cast<float>(rope.magnitude * std::sin(angle));
  }
}

void RopeTable::apply(float* x, int64_t index, float direction) const noexcept {
  const float* cos = cos_.data() + index * n_pairs_;
  const float* sin = sin_.data() + index * n_pairs_;
  const int64_t second = pairing_ == RopePairing::kAdjacent ? 1 : n_pairs_;
  const int64_t stride = pairing_ == RopePairing::kAdjacent ? 2 : 1;
  for (int64_t i = 0; i < n_pairs_; ++i) {
    float& a = x[i * stride];
    float& b = x[i * stride + second];
    const float s = direction * sin[i];
    const float rotated = a * cos[i] - b * s;
    b = a * s + b * cos[i];
    a = rotated;
  }
}

}  // namespace quern
