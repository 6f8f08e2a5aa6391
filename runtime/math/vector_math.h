#pragma once

#include <cstdint>

#include "formats/model/activation.h"

namespace quern {

// Exponentials, norms and activations over rows of floats: computed in double, stored as f32.
//
// Sums have eight lanes: lane j adds the elements with index j, j + 8, j + 16 ... in that order, from zero; the result is
// ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)). With that, targets with fused multiply-add give the same bits whatever the width
// of their vectors.

// 1 / sqrt(mean of squares + eps).
double inverse_rms(const float* x, int64_t n, double eps) noexcept;

// out[i] = weight[i] * x[i] * inverse_rms(x); weight nullptr means ones. out may be x.
void rms_norm(const float* x, const float* weight, int64_t n, double eps, float* out) noexcept;

// x[i] = exp(x[i] * scale - largest), which rounds to float; returns the sum of the values before rounding. -inf gives 0.
double exp_row(float* x, int64_t n, double scale, double largest) noexcept;

// Sum of exp(x[i] - largest).
double exp_sum(const float* x, int64_t n, double largest) noexcept;

float largest_of(const float* x, int64_t n) noexcept;  // n >= 1, no NaN

// gate[i] = activation(gate[i], up[i]); limit > 0 clamps both first, as gpt-oss and DeepSeek-V4 do (activation.h).
void activate_row(Activation activation, double limit, float* gate, const float* up, int64_t n) noexcept;

}  // namespace quern
