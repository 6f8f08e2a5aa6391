#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/model/hparams.h"

namespace quern {

// Manifold-constrained hyper-connections (DeepSeek-V4): n residual streams that a sublayer reads through `pre` and writes through
// `post`, while `comb` mixes the old streams. Source: deepseek-ai/DeepSeek-V4-Flash inference/model.py (hc_pre, hc_post, hc_head).
struct HyperWeights {
  std::span<const float> base;   // [2n + n*n], head: [n]
  std::span<const float> scale;  // [3], head: [1]
};

struct HyperMix {
  std::vector<double> pre;   // [n]
  std::vector<double> post;  // [n]
  std::vector<double> comb;  // [n, n], source stream by destination stream
};

// mixes: the product fn * x of the unnormalised streams [2n + n*n]; inverse_rms: of the same n*hidden values.
HyperMix hyper_mix(std::span<const float> mixes, double inverse_rms, const HyperWeights& weights, int64_t n_streams, int64_t iterations,
                   double eps);
// The read weights of the output head; mixes: [n].
std::vector<double> hyper_head_mix(std::span<const float> mixes, double inverse_rms, const HyperWeights& weights, double eps);

// Row softmax plus eps, then columns; then (iterations - 1) times rows and columns, every divisor plus eps. matrix: [n, n] in place.
void sinkhorn(std::span<double> matrix, int64_t n, int64_t iterations, double eps);

// y = sum_j pre_j X_j; streams: [n, hidden].
void hyper_read(const float* streams, std::span<const double> pre, int64_t hidden, float* y) noexcept;
// X'_k = post_k * f + sum_j comb[j][k] X_j, in place.
void hyper_write(float* streams, const float* f, const HyperMix& mix, int64_t hidden) noexcept;

}  // namespace quern
