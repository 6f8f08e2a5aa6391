// Searches for y = scale * level, one scale for some weights of one row. Compiled once per CPU target.
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

#include "quantize/plain/encoders.h"
#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/levels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// sum w (x - scale v)^2 over n weights, v being the level nearest to x / scale. x(i): weight i in all lanes, for 16 scales, or of 16 rows.
template <typename Levels, typename X>
HWY_INLINE Lanes errors_of_scales(X x, const float* w, int n, const Lanes& scale) {
  const Step step = step_of(scale);
  Lanes error = splat(0.0f);
  for (int i = 0; i < n; ++i) {
    const Lanes v = x(i) * step.inverse;
    const Lanes rest = v - Levels::nearest(v);
    error += splat(w[i]) * rest * rest;
  }
  return error * step.squared;
}

// The least-squares problem for the codes that scales lead to.
struct ScaleTerms {
  Lanes xv;  // sum w x v
  Lanes vv;  // sum w v^2
};

template <typename Levels, typename X>
HWY_INLINE ScaleTerms terms_of_scales(X x, const float* w, int n, const Lanes& scale) {
  const Lanes inverse = reciprocal_or_zero(scale);
  ScaleTerms terms{splat(0.0f), splat(0.0f)};
  for (int i = 0; i < n; ++i) {
    const Lanes xi = x(i);
    const Lanes v = Levels::nearest(xi * inverse);
    const Lanes wv = splat(w[i]) * v;
    terms.xv += wv * xi;
    terms.vv += wv * v;
  }
  return terms;
}

// The scales of least error for the codes that 16 scales lead to; where all codes are zero, the scale itself.
template <typename Levels>
Lanes refitted_scales(const float* x, const float* w, int n, const Lanes& scale) {
  const ScaleTerms terms = terms_of_scales<Levels>([x](int i) { return splat(x[i]); }, w, n, scale);
  return select_less(splat(0.0f), terms.vv, terms.xv / terms.vv, scale);
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
  int rungs;  // a multiple of 4 where rows are searched side by side, else of 16

  // The same range in twice the steps, or, where there are more than 16, in about half of them.
  Ladder for_effort(Effort effort) const {
    if (effort == Effort::kBest) return {first, 0.5f * step, 2 * rungs};
    const int fewer = (rungs + 8) / 32 * 16;
    if (effort == Effort::kFast && fewer > 0) return {first, step * static_cast<float>(rungs) / static_cast<float>(fewer), fewer};
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
  for (int k = 0; k < ladder.rungs; k += kLanes) {
    const Lanes rung = splat(ladder.first) + (load(rungs) + splat(static_cast<float>(k))) * splat(ladder.step);
    const Lanes scale = round(refitted_scales<Levels>(x, w, n, round(rung * splat(outermost_scale))));
    const BestLane found = minimum(errors_of_scales<Levels>([x](int i) { return splat(x[i]); }, w, n, scale));
    if (found.value < best.error) best = {lane(scale, found.lane), found.value};
  }
  return best;
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_SCALE_SEARCH_INL_H_
