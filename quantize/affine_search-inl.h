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

#include "quantize/descents-inl.h"
#include "quantize/lanes-inl.h"

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

// Sums over the weights of a block, per pair.
struct AffineSums {
  Lanes q;   // sum w q
  Lanes qq;  // sum w q^2
  Lanes xq;  // sum w x q
};

inline AffineSums sums_of_affine(const float* x, const float* w, int n, float max_code, const Lanes& scale, const Lanes& min) {
  const Lanes inverse = reciprocal_or_zero(scale);
  AffineSums sums{splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int i = 0; i < n; ++i) {
    const Lanes xi = splat(x[i]);
    const Lanes q = affine_code(xi, min, inverse, max_code);
    const Lanes wq = splat(w[i]) * q;
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
  for (int step = 0; step < how.rounds; ++step) {
    const AffineSums sums = sums_of_affine(x, w, n, how.max_code, scale, min);
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
  const BestLane found = minimum(errors_of_affine(x, w, n, how.max_code, scale, min));
  return {lane(scale, found.lane), lane(min, found.lane), found.value};
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

  // The best n_descents of the starts are improved in turn with d and dmin as long as that helps, at most max_rounds times; the best
  // end is kept.
  Fit search(const Start* starts, int n_starts, int n_descents, int max_rounds) const {
    Fit fits[kMostStarts];
    n_starts = std::min(n_starts, kMostStarts);
    for (int s = 0; s < n_starts; ++s) {
      fits[s].d = to_f16(static_cast<double>(largest_scale_ / starts[s].scale_target), unit_);
      fits[s].dmin = to_f16(static_cast<double>(largest_min_ / starts[s].min_target), unit_);
      fits[s].error = 0.0;
    }
    for (int s = 0; s < n_starts; s += 2) choose_first_pairs(fits[s], fits[s + 1]);  // of an odd number the last beside an unused one
    return best_descent(fits, n_starts, n_descents, [&](const Fit& start) { return descend(start, max_rounds); });
  }

 private:
  Fit descend(const Fit& start, int max_rounds) const {
    Fit best = start;
    for (int round = 0; round < max_rounds; ++round) {
      Fit fit;
      refit(best, fit.d, fit.dmin);
      if (fit.d == best.d && fit.dmin == best.dmin) break;
      fit.error = 0.0;
      for (int b = 0; b < kSubBlocks; ++b) choose_pair(b, static_cast<float>(best.scale[b]), static_cast<float>(best.min[b]), fit);
      if (!(fit.error < best.error)) break;
      best = fit;
    }
    return best;
  }

  static float inverse_or_zero(float unit) { return unit > 0.0f ? 1.0f / unit : 0.0f; }

  static float nearest_integer(float value) { return std::nearbyint(std::min(value, static_cast<float>(kMaxScale))); }

  // For two starts at once: of every sub-block the best of 8 pairs around its own optimum, and the sum of the errors.
  void choose_first_pairs(Fit& first, Fit& second) const {
    alignas(64) static constexpr float kScaleSteps[kLanes] = {0, -1, 1, 0, 0, -1, 1, 1, 0, -1, 1, 0, 0, -1, 1, 1};
    alignas(64) static constexpr float kMinSteps[kLanes] = {0, 0, 0, -1, 1, -1, 1, -1, 0, 0, 0, -1, 1, -1, 1, -1};
    const Lanes unit = halves(first.d, second.d);
    const Lanes min_unit = halves(first.dmin, second.dmin);
    const float inverses[] = {inverse_or_zero(first.d), inverse_or_zero(second.d)};
    const float min_inverses[] = {inverse_or_zero(first.dmin), inverse_or_zero(second.dmin)};
    for (int b = 0; b < kSubBlocks; ++b) {
      const Lanes own_scale = halves(nearest_integer(own_[b].scale * inverses[0]), nearest_integer(own_[b].scale * inverses[1]));
      const Lanes own_min = halves(nearest_integer(own_[b].min * min_inverses[0]), nearest_integer(own_[b].min * min_inverses[1]));
      const Lanes s = clamp(own_scale + load(kScaleSteps), 0.0f, kMaxScale);
      const Lanes m = clamp(own_min + load(kMinSteps), 0.0f, kMaxScale);
      const Lanes errors = errors_of_affine(x_ + b * kSize, w_ + b * kSize, kSize, kMaxCode, unit * s, min_unit * m);
      const Lanes never = splat(HUGE_VALF);
      take(b, s, m, minimum(merge_halves(errors, never)), first);
      take(b, s, m, minimum(merge_halves(never, errors)), second);
    }
  }

  void take(int b, const Lanes& scales, const Lanes& mins, const BestLane& found, Fit& fit) const {
    fit.scale[b] = static_cast<int>(lane(scales, found.lane));
    fit.min[b] = static_cast<int>(lane(mins, found.lane));
    fit.error += static_cast<double>(found.value);
  }

  // Takes the best of 16 pairs around (scale, min) and adds its error.
  void choose_pair(int b, float scale, float min, Fit& fit) const {
    alignas(64) static constexpr float kScaleSteps[kLanes] = {-1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, 0};
    alignas(64) static constexpr float kMinSteps[kLanes] = {-2, -2, -2, -1, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3};
    const Lanes s = clamp(splat(scale) + load(kScaleSteps), 0.0f, kMaxScale);
    const Lanes m = clamp(splat(min) + load(kMinSteps), 0.0f, kMaxScale);
    take(b, s, m, minimum(errors_of_affine(x_ + b * kSize, w_ + b * kSize, kSize, kMaxCode, splat(fit.d) * s, splat(fit.dmin) * m)), fit);
  }

  // The least-squares d and dmin of sum w (x - d S q + dmin M)^2 for the integers and codes of a fit; what has none stays.
  void refit(const Fit& fit, float& d, float& dmin) const {
    double ss = 0.0, sm = 0.0, mm = 0.0, xs = 0.0, xm = 0.0;
    for (int b = 0; b < kSubBlocks; ++b) {
      const auto S = static_cast<double>(fit.scale[b]);
      const auto M = static_cast<double>(fit.min[b]);
      const Lanes inverse = reciprocal_or_zero(splat(fit.d * static_cast<float>(fit.scale[b])));
      const Lanes min = splat(fit.dmin * static_cast<float>(fit.min[b]));
      Lanes sum_q = splat(0.0f);
      Lanes sum_qq = splat(0.0f);
      Lanes sum_xq = splat(0.0f);
      for (int i = b * kSize; i < (b + 1) * kSize; i += kLanes) {
        const Lanes x = load(x_ + i);
        const Lanes q = affine_code(x, min, inverse, kMaxCode);
        const Lanes wq = load(w_ + i) * q;
        sum_q += wq;
        sum_qq += wq * q;
        sum_xq += wq * x;
      }
      ss += S * S * static_cast<double>(sum_of(sum_qq));
      sm += S * M * static_cast<double>(sum_of(sum_q));
      mm += M * M * static_cast<double>(sum_w_[b]);
      xs += S * static_cast<double>(sum_of(sum_xq));
      xm += M * static_cast<double>(sum_wx_[b]);
    }
    d = fit.d;
    dmin = fit.dmin;
    const double det = ss * mm - sm * sm;
    if (det > 1e-9 * ss * mm) {
      const double new_min = (sm * xs - ss * xm) / det;
      if (new_min >= 0.0) {
        d = to_f16((mm * xs - sm * xm) / det, unit_);
        dmin = to_f16(new_min, unit_);
        return;
      }
    }
    if (ss > 0.0) d = to_f16(xs / ss, unit_);
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
    store(affine_code(load(x + i), splat(min), inverse, max_code), values);
    for (int j = 0; j < kLanes; ++j) codes[i + j] = static_cast<uint8_t>(values[j]);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_AFFINE_SEARCH_INL_H_
