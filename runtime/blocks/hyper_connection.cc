#include "runtime/blocks/hyper_connection.h"

#include <algorithm>
#include <cmath>

namespace quern {
namespace {

double sigmoid(double v) { return 1.0 / (1.0 + std::exp(-v)); }

void divide_rows(std::span<double> matrix, size_t n, double eps) {
  for (size_t j = 0; j < n; ++j) {
    double sum = 0.0;
    for (size_t k = 0; k < n; ++k) sum += matrix[j * n + k];
    for (size_t k = 0; k < n; ++k) matrix[j * n + k] /= sum + eps;
  }
}

void divide_columns(std::span<double> matrix, size_t n, double eps) {
  for (size_t k = 0; k < n; ++k) {
    double sum = 0.0;
    for (size_t j = 0; j < n; ++j) sum += matrix[j * n + k];
    for (size_t j = 0; j < n; ++j) matrix[j * n + k] /= sum + eps;
  }
}

}  // namespace

void sinkhorn(std::span<double> matrix, int64_t n_signed, int64_t iterations, double eps) {
  const auto n = static_cast<size_t>(n_signed);
  for (size_t j = 0; j < n; ++j) {
    const auto row = matrix.subspan(j * n, n);
    const double largest = *std::ranges::max_element(row);
    double sum = 0.0;
    for (double& v : row) sum += v = std::exp(v - largest);
    for (double& v : row) v = v / sum + eps;
  }
  divide_columns(matrix, n, eps);
  for (int64_t i = 1; i < iterations; ++i) {
    divide_rows(matrix, n, eps);
    divide_columns(matrix, n, eps);
  }
}

HyperMix hyper_mix(std::span<const float> mixes, double inverse_rms, const HyperWeights& weights, int64_t n_streams, int64_t iterations,
                   double eps) {
  const auto n = static_cast<size_t>(n_streams);
  const auto value = [&](size_t i, size_t scale) {
    return static_cast<double>(mixes[i]) * inverse_rms * static_cast<double>(weights.scale[scale]) + static_cast<double>(weights.base[i]);
  };
  HyperMix mix;
  for (size_t j = 0; j < n; ++j) mix.pre.push_back(sigmoid(value(j, 0)) + eps);
  for (size_t k = 0; k < n; ++k) mix.post.push_back(2.0 * sigmoid(value(n + k, 1)));
  for (size_t i = 0; i < n * n; ++i) mix.comb.push_back(value(2 * n + i, 2));
  sinkhorn(mix.comb, n_streams, iterations, eps);
  return mix;
}

std::vector<double> hyper_head_mix(std::span<const float> mixes, double inverse_rms, const HyperWeights& weights, double eps) {
  std::vector<double> pre;
  for (size_t j = 0; j < mixes.size(); ++j) {
    pre.push_back(sigmoid(static_cast<double>(mixes[j]) * inverse_rms * static_cast<double>(weights.scale[0]) +
                          static_cast<double>(weights.base[j])) +
                  eps);
  }
  return pre;
}

void hyper_read(const float* streams, std::span<const double> pre, int64_t hidden, float* y) noexcept {
  for (int64_t i = 0; i < hidden; ++i) {
    double sum = 0.0;
    for (size_t j = 0; j < pre.size(); ++j) sum += pre[j] * static_cast<double>(streams[static_cast<int64_t>(j) * hidden + i]);
    y[i] = static_cast<float>(sum);
  }
}

void hyper_write(float* streams, const float* f, const HyperMix& mix, int64_t hidden) noexcept {
  const size_t n = mix.post.size();
  constexpr size_t kMaxStreams = 16;
  double old[kMaxStreams];
  for (int64_t i = 0; i < hidden; ++i) {
    for (size_t j = 0; j < n; ++j) old[j] = static_cast<double>(streams[static_cast<int64_t>(j) * hidden + i]);
    for (size_t k = 0; k < n; ++k) {
      double sum = mix.post[k] * static_cast<double>(f[i]);
      for (size_t j = 0; j < n; ++j) sum += mix.comb[j * n + k] * old[j];
      streams[static_cast<int64_t>(k) * hidden + i] = static_cast<float>(sum);
    }
  }
}

}  // namespace quern
