// Searches for y = scale * level (one scale for some weights), and for y = d * l * level (super-blocks: d for all weights, an integer
// l per sub-block). Compiled once per CPU target.
//
// The error as a function of the scale has many local minima, because every weight contributes a saw-tooth. So: a ladder of scales
// around the one that maps the largest weight to the outermost level, in both orientations where the levels are lopsided; each rung is
// refitted by least squares for its codes; the best exact error wins. Scales are rounded to binary16 before their error is taken.

#if defined(QUERN_QUANTIZE_SCALE_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_SCALE_SEARCH_INL_H_
#undef QUERN_QUANTIZE_SCALE_SEARCH_INL_H_
#else
#define QUERN_QUANTIZE_SCALE_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "quantize/descents-inl.h"
#include "quantize/lanes-inl.h"
#include "quantize/levels-inl.h"
#include "quantize/row_encoders.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Of 16 candidate scales: sum w (x - scale v)^2 over the weights of a block, v being the level nearest to x / scale.
template <typename Levels>
Lanes errors_of_scales(const float* x, const float* w, int n, const Lanes& scale) {
  const Step step = step_of(scale);
  Lanes error = splat(0.0f);
  for (int i = 0; i < n; ++i) {
    const Lanes v = splat(x[i]) * step.inverse;
    const Lanes rest = v - Levels::nearest(v);
    error += splat(w[i]) * rest * rest;
  }
  return error * step.squared;
}

// The least-squares scales for the codes that 16 scales lead to; where all codes are zero, the scale itself.
template <typename Levels>
Lanes refitted_scales(const float* x, const float* w, int n, const Lanes& scale) {
  const Lanes inverse = reciprocal_or_zero(scale);
  Lanes xv = splat(0.0f);
  Lanes vv = splat(0.0f);
  for (int i = 0; i < n; ++i) {
    const Lanes xi = splat(x[i]);
    const Lanes v = Levels::nearest(xi * inverse);
    const Lanes wv = splat(w[i]) * v;
    xv += wv * xi;
    vv += wv * v;
  }
  return select_less(splat(0.0f), vv, xv / vv, scale);
}

// The terms of that least-squares problem for one scale and n weights, a multiple of 16.
struct ScaleTerms {
  double xv;  // sum w x v
  double vv;  // sum w v^2
};

template <typename Levels>
ScaleTerms terms_of_scale(const float* x, const float* w, int n, float scale) {
  const Lanes inverse = reciprocal_or_zero(splat(scale));
  Lanes xv = splat(0.0f);
  Lanes vv = splat(0.0f);
  for (int i = 0; i < n; i += kLanes) {
    const Lanes xi = load(x + i);
    const Lanes v = Levels::nearest(xi * inverse);
    const Lanes wv = load(w + i) * v;
    xv += wv * xi;
    vv += wv * v;
  }
  return {static_cast<double>(sum_of(xv)), static_cast<double>(sum_of(vv))};
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
  for (int batch = 0; batch < ladder.batches; ++batch) {
    const Lanes rung = splat(ladder.first) + (load(rungs) + splat(static_cast<float>(batch * kLanes))) * splat(ladder.step);
    const Lanes scale = round(refitted_scales<Levels>(x, w, n, round(rung * splat(outermost_scale))));
    const BestLane found = minimum(errors_of_scales<Levels>(x, w, n, scale));
    if (found.value < best.error) best = {lane(scale, found.lane), found.value};
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

  // Starts from d values that map the largest sub-block scale to the given values of l; the best n_descents of them are improved in turn
  // with d as long as that helps, at most max_rounds times, and the best end is kept.
  Fit search(const float* targets, int n_targets, int n_descents, int max_rounds) const {
    Fit starts[kMostStarts];
    n_targets = std::min(n_targets, kMostStarts);
    for (int t = 0; t < n_targets; ++t) starts[t] = with_scales_for(to_f16(static_cast<double>(largest_ / targets[t]), unit_));
    return best_descent(starts, n_targets, n_descents, [&](const Fit& start) { return descend(start, max_rounds); });
  }

 private:
  // For this d the best l of every sub-block, by exact error.
  Fit with_scales_for(float d) const {
    Fit fit;
    fit.d = d;
    fit.error = 0.0;
    for (int b = 0; b < kSubBlocks; ++b) choose_scale(b, fit);
    return fit;
  }

  // For the l and codes of a fit the least-squares d.
  float refitted(const Fit& fit) const {
    double xv = 0.0;
    double vv = 0.0;
    for (int b = 0; b < kSubBlocks; ++b) {
      const auto l = static_cast<float>(fit.l[b]);
      const ScaleTerms terms = terms_of_scale<Levels>(x_ + b * kSize, w_ + b * kSize, kSize, fit.d * l);
      xv += static_cast<double>(l) * terms.xv;
      vv += static_cast<double>(l * l) * terms.vv;
    }
    return vv > 0.0 ? to_f16(xv / vv, unit_) : fit.d;
  }

  Fit descend(const Fit& start, int max_rounds) const {
    Fit best = start;
    for (int round = 0; round < max_rounds; ++round) {
      const float d = refitted(best);
      if (d == best.d) break;
      const Fit fit = with_scales_for(d);
      if (!(fit.error < best.error)) break;
      best = fit;
    }
    return best;
  }

  static float nearest_integer(float l) {
    return std::nearbyint(std::min(std::max(l, static_cast<float>(kLowScale)), static_cast<float>(kHighScale)));
  }

  // Takes the best l for this sub-block and adds its error.
  void choose_scale(int b, Fit& fit) const {
    alignas(64) float candidates[2 * kWindow];
    const float inverse = fit.d != 0.0f ? 1.0f / fit.d : 0.0f;
    for (int orientation = 0; orientation < 2; ++orientation) {
      const float own = nearest_integer((orientation == 0 ? low_[b] : high_[b]) * inverse);
      const float away = own < 0.0f ? -1.0f : 1.0f;
      for (int k = 0; k < kWindow; ++k) candidates[orientation * kWindow + k] = own + away * static_cast<float>(k - kSmaller);
    }
    float best_error = HUGE_VALF;
    for (int c = 0; c < 2 * kWindow; c += kLanes) {
      const Lanes l = clamp(load(candidates + c), kLowScale, kHighScale);
      const BestLane found = minimum(errors_of_scales<Levels>(x_ + b * kSize, w_ + b * kSize, kSize, splat(fit.d) * l));
      if (!(found.value < best_error)) continue;
      best_error = found.value;
      fit.l[b] = static_cast<int>(lane(l, found.lane));
    }
    fit.error += static_cast<double>(best_error);
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
