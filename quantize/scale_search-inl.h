// Searches for y = scale * level (one scale for some weights), and for y = d * l * level (super-blocks: d for all weights, an integer
// l per sub-block). Compiled once per CPU target.
//
// The error as a function of the scale has many local minima, because every weight contributes a saw-tooth. So: a ladder of scales
// around the one that maps the largest weight to the outermost level, in both orientations where the levels are lopsided; each rung is
// also refitted by least squares for its codes; the best exact error wins. Scales are rounded to binary16 before their error is taken.

#if defined(QUERN_QUANTIZE_SCALE_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_SCALE_SEARCH_INL_H_
#undef QUERN_QUANTIZE_SCALE_SEARCH_INL_H_
#else
#define QUERN_QUANTIZE_SCALE_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "quantize/lanes-inl.h"
#include "quantize/levels-inl.h"
#include "quantize/row_encoders.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Per candidate scale, over the weights of a block; v is the level nearest to x / scale.
struct ScaleSums {
  Lanes error;  // sum w (x - scale v)^2
  Lanes xv;     // sum w x v
  Lanes vv;     // sum w v^2: xv / vv is the least-squares scale for these codes
};

template <typename Levels>
ScaleSums try_scales(const float* x, const float* w, int n, const Lanes& scale) {
  const Lanes inverse = reciprocal_or_zero(scale);
  ScaleSums sums{splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int i = 0; i < n; ++i) {
    const Lanes xi = splat(x[i]);
    const Lanes wi = splat(w[i]);
    const Lanes v = Levels::nearest(xi * inverse);
    const Lanes rest = xi - scale * v;
    const Lanes wv = wi * v;
    sums.error += wi * rest * rest;
    sums.xv += wv * xi;
    sums.vv += wv * v;
  }
  return sums;
}

template <typename Levels>
Lanes errors_of_scales(const float* x, const float* w, int n, const Lanes& scale) {
  const Lanes inverse = reciprocal_or_zero(scale);
  Lanes error = splat(0.0f);
  for (int i = 0; i < n; ++i) {
    const Lanes xi = splat(x[i]);
    const Lanes rest = xi - scale * Levels::nearest(xi * inverse);
    error += splat(w[i]) * rest * rest;
  }
  return error;
}

// The weight of largest magnitude, with its sign, among those that have any say: an outlier in a channel of (nearly) no importance
// must not set the range of scales.
inline float extreme(const float* x, const float* w, int n) {
  float heaviest = 0.0f;
  for (int i = 0; i < n; ++i) heaviest = std::max(heaviest, w[i]);
  float best = 0.0f;
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(best) && w[i] >= heaviest * 0x1p-14f) best = x[i];
  }
  return best;
}

// Rungs are `first`, `first + step`, ... times the scale that maps the extreme weight to the outermost level.
struct Ladder {
  float first;
  float step;
  int batches;  // of 16 rungs

  // The same range in twice the steps, or in half of them.
  Ladder for_effort(Effort effort) const {
    if (effort == Effort::kBest) return {first, 0.5f * step, 2 * batches};
    if (effort == Effort::kFast && batches > 1)
      return {first, step * static_cast<float>(batches) / static_cast<float>(batches / 2), batches / 2};
    return *this;
  }
};

struct ScaleFit {
  float scale;
  float error;
};

// One orientation: outermost is the level that the extreme weight is mapped to by the rung 1. Round rounds candidate scales (to
// binary16, or not at all for scales that a super-block rounds later).
template <typename Levels, typename Round>
ScaleFit climb(const float* x, const float* w, int n, float outermost_scale, const Ladder& ladder, Round round) {
  alignas(64) float rungs[kLanes];
  for (int c = 0; c < kLanes; ++c) rungs[c] = static_cast<float>(c);
  ScaleFit best{0.0f, HUGE_VALF};
  const auto keep_best = [&best](const Lanes& scale, const Lanes& error) {
    const BestLane found = minimum(error);
    if (found.value < best.error) best = {lane(scale, found.lane), found.value};
  };
  for (int batch = 0; batch < ladder.batches; ++batch) {
    const Lanes rung = splat(ladder.first) + (load(rungs) + splat(static_cast<float>(batch * kLanes))) * splat(ladder.step);
    const Lanes scale = round(rung * splat(outermost_scale));
    const ScaleSums sums = try_scales<Levels>(x, w, n, scale);
    keep_best(scale, sums.error);
    const Lanes refitted = round(select_less(splat(0.0f), sums.vv, sums.xv / sums.vv, scale));
    keep_best(refitted, errors_of_scales<Levels>(x, w, n, refitted));
  }
  return best;
}

// A stand-alone binary16 scale: the best of both orientations, or a positive one where the levels are symmetric.
template <typename Levels>
ScaleFit search_f16_scale(const float* x, const float* w, int n, float unit, const Ladder& ladder) {
  const auto round = [unit](const Lanes& scale) { return round_to_f16(scale, unit); };
  const float outlier = extreme(x, w, n);
  if (Levels::kLowest == -Levels::kHighest) return climb<Levels>(x, w, n, std::fabs(outlier) / Levels::kHighest, ladder, round);
  const ScaleFit low = climb<Levels>(x, w, n, outlier / Levels::kLowest, ladder, round);
  const ScaleFit high = climb<Levels>(x, w, n, outlier / Levels::kHighest, ladder, round);
  return high.error < low.error ? high : low;
}

// Super-blocks. kLowScale..kHighScale is the range of l. Per sub-block and orientation kWindow values of l are tried, kSmaller of them
// nearer to zero than the sub-block's own optimum: where levels are many, scales above it are worth trying, because other rounding
// errors of the codes soon outweigh the coarser step.
template <typename Levels, int kSubBlocks, int kSize, int kLowScale, int kHighScale, int kWindow, int kSmaller>
class ScaledSuperBlock {
  static_assert(2 * kWindow % kLanes == 0);

 public:
  struct Fit {
    float d = 0.0f;
    int l[kSubBlocks] = {};
    double error = HUGE_VAL;
  };

  ScaledSuperBlock(const float* x, const float* w, float unit, const Ladder& ladder) : x_(x), w_(w), unit_(unit) {
    const auto keep = [](const Lanes& scale) { return scale; };
    for (int b = 0; b < kSubBlocks; ++b) {
      const float outlier = extreme(x + b * kSize, w + b * kSize, kSize);
      low_[b] = climb<Levels>(x + b * kSize, w + b * kSize, kSize, outlier / Levels::kLowest, ladder, keep).scale;
      high_[b] = climb<Levels>(x + b * kSize, w + b * kSize, kSize, outlier / Levels::kHighest, ladder, keep).scale;
      const float larger = std::fabs(low_[b]) > std::fabs(high_[b]) ? low_[b] : high_[b];
      if (std::fabs(larger) > std::fabs(largest_)) largest_ = larger;
    }
  }

  // Starts from d values that map the largest sub-block scale to the given values of l, and keeps the best end.
  Fit search(const float* targets, int n_targets, int max_rounds) const {
    Fit best;
    for (int t = 0; t < n_targets; ++t) {
      const Fit fit = descend(largest_ / targets[t], max_rounds);
      if (fit.error < best.error) best = fit;
    }
    return best;
  }

 private:
  // Alternates: for this d the best l of every sub-block, by exact error; for these l and codes the least-squares d.
  Fit descend(float d, int max_rounds) const {
    Fit best;
    d = lane(round_to_f16(splat(d), unit_), 0);
    for (int round = 0; round < max_rounds; ++round) {
      Fit fit;
      fit.d = d;
      fit.error = 0.0;
      double xv = 0.0;
      double vv = 0.0;
      for (int b = 0; b < kSubBlocks; ++b) choose_scale(b, fit, xv, vv);
      if (!(fit.error < best.error)) break;
      best = fit;
      if (!(vv > 0.0)) break;
      d = lane(round_to_f16(splat(static_cast<float>(xv / vv)), unit_), 0);
      if (d == fit.d) break;
    }
    return best;
  }

  static float nearest_integer(float l) {
    return std::nearbyint(std::min(std::max(l, static_cast<float>(kLowScale)), static_cast<float>(kHighScale)));
  }

  // Adds the best choice for this sub-block to the error and to the normal equation of d.
  void choose_scale(int b, Fit& fit, double& xv, double& vv) const {
    alignas(64) float candidates[2 * kWindow];
    const float inverse = fit.d != 0.0f ? 1.0f / fit.d : 0.0f;
    for (int orientation = 0; orientation < 2; ++orientation) {
      const float own = nearest_integer((orientation == 0 ? low_[b] : high_[b]) * inverse);
      const float away = own < 0.0f ? -1.0f : 1.0f;
      for (int k = 0; k < kWindow; ++k) candidates[orientation * kWindow + k] = own + away * static_cast<float>(k - kSmaller);
    }
    float best_error = HUGE_VALF;
    double best_l = 0.0;
    double best_xv = 0.0;
    double best_vv = 0.0;
    for (int c = 0; c < 2 * kWindow; c += kLanes) {
      const Lanes l = clamp(load(candidates + c), kLowScale, kHighScale);
      const ScaleSums sums = try_scales<Levels>(x_ + b * kSize, w_ + b * kSize, kSize, splat(fit.d) * l);
      const BestLane found = minimum(sums.error);
      if (!(found.value < best_error)) continue;
      best_error = found.value;
      best_l = static_cast<double>(lane(l, found.lane));
      best_xv = static_cast<double>(lane(sums.xv, found.lane));
      best_vv = static_cast<double>(lane(sums.vv, found.lane));
    }
    fit.l[b] = static_cast<int>(best_l);
    fit.error += static_cast<double>(best_error);
    xv += best_l * best_xv;
    vv += best_l * best_l * best_vv;
  }

  const float* x_;
  const float* w_;
  float unit_;
  float low_[kSubBlocks];   // scale with the extreme weight near the lowest level
  float high_[kSubBlocks];  // near the highest level
  float largest_ = 0.0f;
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_SCALE_SEARCH_INL_H_
