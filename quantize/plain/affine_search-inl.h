// Searches for y = scale * q - min with q = 0..n, alone or in super-blocks y = (d * S) * q - (dmin * M). Compiled once per CPU target.
//
// Alone: 16 (scale, min) pairs that clip the range of the weights by different amounts at either end, each improved by alternating
// rounding and least squares; 16 lanes do that at once. Super-blocks: for given d and dmin every sub-block takes the pair (S, M) of
// least exact error near its own optimum; of several starts, because the 4-bit or 6-bit grids of S and M leave many local minima, the
// best are improved by refitting d and dmin together for these integers and codes.

#if defined(QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
#undef QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
#else
#define QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "quantize/plain/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

HWY_INLINE Lanes affine_code(const Lanes& x, const Lanes& min, const Lanes& inverse, float max_code) {
  return round_to_int(clamp((x + min) * inverse, 0.0f, max_code));
}

// Of 16 pairs: sum w (x - y)^2 over the weights of a block, q being the best codes of each pair.
inline Lanes errors_of_affine(const float* x, const float* w, int n, float max_code, const Lanes& scale, const Lanes& min) {
  const Step step = step_of(scale);
  Lanes error = splat(0.0f);
  for (int i = 0; i < n; ++i) {
    const Lanes q = (splat(x[i]) + min) * step.inverse;
    const Lanes rest = q - round_to_int(clamp(q, 0.0f, max_code));
    error += splat(w[i]) * rest * rest;
  }
  return error * step.squared;
}

// Sums over some weights, per pair.
struct AffineSums {
  Lanes q;   // sum w q
  Lanes qq;  // sum w q^2
  Lanes xq;  // sum w x q
};

// x(i): weight i in all lanes, for 16 pairs, or of 16 rows.
template <typename X>
HWY_INLINE AffineSums sums_of_affine(X x, const float* w, int n, float max_code, const Lanes& scale, const Lanes& min) {
  const Lanes inverse = reciprocal_or_zero(scale);
  AffineSums sums{splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int i = 0; i < n; ++i) {
    const Lanes xi = x(i);
    const Lanes q = affine_code(xi, min, inverse, max_code);
    const Lanes wq = splat(w[i]) * q;
    sums.q += wq;
    sums.qq += wq * q;
    sums.xq += wq * xi;
  }
  return sums;
}

// The pair of least error for the codes of another: normal equations of sum w (x - scale q + min)^2, singular when all codes are equal:
// those lanes stay. nonnegative_min: a min below zero becomes zero, with the best scale for that.
HWY_INLINE void solve_affine(const AffineSums& sums, const Lanes& sum_w, const Lanes& sum_wx, bool nonnegative_min, Lanes& scale,
                             Lanes& min) {
  const Lanes zero = splat(0.0f);
  const Lanes det = sum_w * sums.qq - sums.q * sums.q;
  const Lanes solvable = splat(1e-6f) * sum_w * sums.qq;
  Lanes new_scale = select_less(solvable, det, (sum_w * sums.xq - sums.q * sum_wx) / det, scale);
  Lanes new_min = select_less(solvable, det, (sums.q * sums.xq - sums.qq * sum_wx) / det, min);
  if (nonnegative_min) {
    const Lanes through_zero = select_less(zero, sums.qq, sums.xq / sums.qq, scale);
    new_scale = select_less(new_min, zero, through_zero, new_scale);
    new_min = select_less(new_min, zero, zero, new_min);
  }
  scale = new_scale;
  min = new_min;
}

struct AffineFit {
  float scale = 0.0f;
  float min = 0.0f;
  float error = HUGE_VALF;
};

struct AffineStarts {
  float max_code;
  float clip_step;       // how much less of the range each further quadruple of starts covers
  int rounds;            // of rounding and least squares
  bool nonnegative_min;  // the K-quants subtract an unsigned min
};

// Round rounds the members of a pair: to binary16, or not at all where a super-block rounds them later.
template <typename Round>
AffineFit search_affine(const float* x, const float* w, int n, const AffineStarts& how, Round round) {
  float low = x[0];
  float high = x[0];
  float sum_w = 0.0f;
  float sum_wx = 0.0f;
  for (int i = 0; i < n; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
    sum_w += w[i];
    sum_wx += w[i] * x[i];
  }
  if (how.nonnegative_min) low = std::min(low, 0.0f);
  alignas(64) float scales[kLanes];
  alignas(64) float mins[kLanes];
  for (int c = 0; c < kLanes; ++c) {
    const float covered = 1.05f - how.clip_step * static_cast<float>(c / 4);
    const float below = static_cast<float>(c % 4) / 3.0f;  // share of the clipped part that is taken from the low end
    scales[c] = (high - low) * covered / how.max_code;
    mins[c] = -(low + (high - low) * (1.0f - covered) * below);
    if (how.nonnegative_min) mins[c] = std::max(mins[c], 0.0f);
  }
  Lanes scale = round(load(scales));
  Lanes min = round(load(mins));
  for (int step = 0; step < how.rounds; ++step) {
    const AffineSums sums = sums_of_affine([x](int i) { return splat(x[i]); }, w, n, how.max_code, scale, min);
    solve_affine(sums, splat(sum_w), splat(sum_wx), how.nonnegative_min, scale, min);
    scale = round(scale);
    min = round(min);
  }
  const BestLane found = minimum(errors_of_affine(x, w, n, how.max_code, scale, min));
  return {lane(scale, found.lane), lane(min, found.lane), found.value};
}

// Codes of n weights (a multiple of 16) for one pair.
inline void codes_for_affine(const float* x, int n, float max_code, float scale, float min, uint8_t* codes) {
  const Lanes inverse = reciprocal_or_zero(splat(scale));
  for (int i = 0; i < n; i += kLanes) {
    alignas(64) float values[kLanes];
    store(affine_code(load(x + i), splat(min), inverse, max_code), values);
    for (int j = 0; j < kLanes; ++j) codes[i + j] = static_cast<uint8_t>(values[j]);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
