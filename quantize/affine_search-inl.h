// Searches for y = scale * q - min with q = 0..n, alone or in super-blocks y = (d * S) * q - (dmin * M). Compiled once per CPU target.
//
// Alone: 16 (scale, min) pairs that clip the range of the weights by different amounts at either end, each improved by alternating
// rounding and least squares; 16 lanes do that at once. Super-blocks: for given d and dmin every sub-block takes the pair (S, M) of
// least exact error near its own optimum, then d and dmin are refitted together for these integers and codes; from several starts,
// because the 4-bit or 6-bit grids of S and M leave many local minima.

#if defined(QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
#undef QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
#else
#define QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "quantize/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Per candidate pair, over the weights of a block.
struct AffineSums {
  Lanes error;  // sum w (x - y)^2
  Lanes q;      // sum w q
  Lanes qq;     // sum w q^2
  Lanes xq;     // sum w x q
};

inline AffineSums try_affine(const float* x, const float* w, int n, float max_code, const Lanes& scale, const Lanes& min) {
  const Lanes inverse = reciprocal_or_zero(scale);
  AffineSums sums{splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int i = 0; i < n; ++i) {
    const Lanes xi = splat(x[i]);
    const Lanes wi = splat(w[i]);
    const Lanes q = round_to_int(clamp((xi + min) * inverse, 0.0f, max_code));
    const Lanes rest = xi - (scale * q - min);
    const Lanes wq = wi * q;
    sums.error += wi * rest * rest;
    sums.q += wq;
    sums.qq += wq * q;
    sums.xq += wq * xi;
  }
  return sums;
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
  const Lanes zero = splat(0.0f);
  const Lanes w_lanes = splat(sum_w);
  const Lanes wx_lanes = splat(sum_wx);
  AffineFit best;
  for (int step = 0; step < how.rounds; ++step) {
    const AffineSums sums = try_affine(x, w, n, how.max_code, scale, min);
    const BestLane found = minimum(sums.error);
    if (found.value < best.error) best = {lane(scale, found.lane), lane(min, found.lane), found.value};
    // Normal equations of sum w (x - scale q + min)^2; singular when all codes are equal: those lanes stay.
    const Lanes det = w_lanes * sums.qq - sums.q * sums.q;
    const Lanes solvable = splat(1e-6f) * w_lanes * sums.qq;
    Lanes new_scale = select_less(solvable, det, (w_lanes * sums.xq - sums.q * wx_lanes) / det, scale);
    Lanes new_min = select_less(solvable, det, (sums.q * sums.xq - sums.qq * wx_lanes) / det, min);
    if (how.nonnegative_min) {
      const Lanes through_zero = select_less(zero, sums.qq, sums.xq / sums.qq, scale);
      new_scale = select_less(new_min, zero, through_zero, new_scale);
      new_min = select_less(new_min, zero, zero, new_min);
    }
    scale = round(new_scale);
    min = round(new_min);
  }
  return best;
}

template <int kSubBlocks, int kSize, int kMaxCode, int kMaxScale>
class AffineSuperBlock {
 public:
  struct Fit {
    float d = 0.0f;
    float dmin = 0.0f;
    int scale[kSubBlocks] = {};
    int min[kSubBlocks] = {};
    double error = HUGE_VAL;
  };

  AffineSuperBlock(const float* x, const float* w, float unit, float clip_step, int rounds) : x_(x), w_(w), unit_(unit) {
    const auto keep = [](const Lanes& value) { return value; };
    for (int b = 0; b < kSubBlocks; ++b) {
      const float* xb = x + b * kSize;
      const float* wb = w + b * kSize;
      own_[b] = search_affine(xb, wb, kSize, {kMaxCode, clip_step, rounds, true}, keep);
      largest_scale_ = std::max(largest_scale_, own_[b].scale);
      largest_min_ = std::max(largest_min_, own_[b].min);
      sum_w_[b] = 0.0f;
      sum_wx_[b] = 0.0f;
      for (int i = 0; i < kSize; ++i) {
        sum_w_[b] += wb[i];
        sum_wx_[b] += wb[i] * xb[i];
      }
    }
  }

  // A start maps the largest scale and the largest min of the sub-blocks to these integers.
  struct Start {
    float scale_target;
    float min_target;
  };

  Fit search(const Start* starts, int n_starts, int max_rounds) const {
    Fit best;
    for (int s = 0; s < n_starts; ++s) {
      const Fit fit = descend(largest_scale_ / starts[s].scale_target, largest_min_ / starts[s].min_target, max_rounds);
      if (fit.error < best.error) best = fit;
    }
    return best;
  }

 private:
  // Normal equations of d and dmin, in the terms of sum w (x - d S q + dmin M)^2.
  struct Normal {
    double ss = 0.0, sm = 0.0, mm = 0.0, xs = 0.0, xm = 0.0;
  };

  float to_f16(double value) const { return lane(round_to_f16(splat(static_cast<float>(value)), unit_), 0); }

  Fit descend(float d, float dmin, int max_rounds) const {
    Fit best;
    d = to_f16(d);
    dmin = to_f16(dmin);
    for (int round = 0; round < max_rounds; ++round) {
      Fit fit;
      fit.d = d;
      fit.dmin = dmin;
      fit.error = 0.0;
      Normal normal;
      for (int b = 0; b < kSubBlocks; ++b) {
        const bool first = round == 0;
        const float scale = first ? nearest_integer(own_[b].scale, d) : static_cast<float>(best.scale[b]);
        const float min = first ? nearest_integer(own_[b].min, dmin) : static_cast<float>(best.min[b]);
        choose_pair(b, scale, min, fit, normal);
      }
      if (!(fit.error < best.error)) break;
      best = fit;
      refit(normal, d, dmin);
    }
    return best;
  }

  static float nearest_integer(float value, float unit) {
    return unit > 0.0f ? std::nearbyint(std::min(value / unit, static_cast<float>(kMaxScale))) : 0.0f;
  }

  // The best of 3 x 5 pairs around (scale, min) by exact error.
  void choose_pair(int b, float scale, float min, Fit& fit, Normal& normal) const {
    alignas(64) float scales[kLanes];
    alignas(64) float mins[kLanes];
    for (int c = 0; c < kLanes; ++c) {
      scales[c] = scale + static_cast<float>(c % 3 - 1);
      mins[c] = min + static_cast<float>(c / 3 - 2);
    }
    const Lanes s = clamp(load(scales), 0.0f, kMaxScale);
    const Lanes m = clamp(load(mins), 0.0f, kMaxScale);
    const AffineSums sums = try_affine(x_ + b * kSize, w_ + b * kSize, kSize, kMaxCode, splat(fit.d) * s, splat(fit.dmin) * m);
    const BestLane found = minimum(sums.error);
    const double S = static_cast<double>(lane(s, found.lane));
    const double M = static_cast<double>(lane(m, found.lane));
    fit.scale[b] = static_cast<int>(S);
    fit.min[b] = static_cast<int>(M);
    fit.error += static_cast<double>(found.value);
    normal.ss += S * S * static_cast<double>(lane(sums.qq, found.lane));
    normal.sm += S * M * static_cast<double>(lane(sums.q, found.lane));
    normal.mm += M * M * static_cast<double>(sum_w_[b]);
    normal.xs += S * static_cast<double>(lane(sums.xq, found.lane));
    normal.xm += M * static_cast<double>(sum_wx_[b]);
  }

  void refit(const Normal& n, float& d, float& dmin) const {
    const double det = n.ss * n.mm - n.sm * n.sm;
    if (det > 1e-9 * n.ss * n.mm) {
      const double new_min = (n.sm * n.xs - n.ss * n.xm) / det;
      if (new_min >= 0.0) {
        d = to_f16((n.mm * n.xs - n.sm * n.xm) / det);
        dmin = to_f16(new_min);
        return;
      }
    }
    if (n.ss > 0.0) d = to_f16(n.xs / n.ss);
  }

  const float* x_;
  const float* w_;
  float unit_;
  AffineFit own_[kSubBlocks];
  float sum_w_[kSubBlocks];
  float sum_wx_[kSubBlocks];
  float largest_scale_ = 0.0f;
  float largest_min_ = 0.0f;
};

// Codes of n weights (a multiple of 16) for one pair.
inline void codes_for_affine(const float* x, int n, float max_code, float scale, float min, uint8_t* codes) {
  const Lanes inverse = reciprocal_or_zero(splat(scale));
  for (int i = 0; i < n; i += kLanes) {
    alignas(64) float values[kLanes];
    store(round_to_int(clamp((load(x + i) + splat(min)) * inverse, 0.0f, max_code)), values);
    for (int j = 0; j < kLanes; ++j) codes[i + j] = static_cast<uint8_t>(values[j]);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
