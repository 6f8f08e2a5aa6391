// Searches for y = scale * level (one scale for some weights), and for y = d * l * level (super-blocks: d for all weights, an integer
// l per sub-block), 16 rows of a matrix side by side. Compiled once per CPU target.
//
// The error as a function of the scale has many local minima, because every weight contributes a saw-tooth. So: a ladder of scales
// around the one that maps the largest weight to the outermost level, in both orientations where the levels are lopsided. Scales are
// rounded to binary16 before their error is taken. For super-blocks the best rungs are only where the search for d and l begins.

#if defined(QUERN_QUANTIZE_SCALED_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_SCALED_ROWS_INL_H_
#undef QUERN_QUANTIZE_SCALED_ROWS_INL_H_
#else
#define QUERN_QUANTIZE_SCALED_ROWS_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/levels-inl.h"
#include "quantize/plain/row_errors-inl.h"
#include "quantize/plain/row_group-inl.h"
#include "quantize/plain/scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

inline constexpr int kScalesAtOnce = 4;

struct RowScales {
  Lanes scale = {};
  Lanes error = {};
};

// Takes the best rung for each row where it is better than what is there. outermost: the scale that the rung 1 stands for.
template <typename Errors, typename Round>
void climb_rows(const Errors& errors, const Lanes& outermost, const Ladder& ladder, Round round, RowScales& best) {
  for (int k = 0; k < ladder.rungs; k += kScalesAtOnce) {
    Lanes scale[kScalesAtOnce];
    Lanes error[kScalesAtOnce];
    for (int c = 0; c < kScalesAtOnce; ++c) scale[c] = round(outermost * splat(ladder.first + static_cast<float>(k + c) * ladder.step));
    errors.template of_scales<kScalesAtOnce>(scale, error);
    for (int c = 0; c < kScalesAtOnce; ++c) {
      best.scale = select_less(error[c], best.error, scale[c], best.scale);
      best.error = min(best.error, error[c]);
    }
  }
}

template <typename Levels>
ScaleTerms terms_of_rows(const float (*x)[kLanes], const float* w, int n, const Lanes& scale) {
  return terms_of_scales<Levels>([x](int j) { return load(x[j]); }, w, n, scale);
}

template <typename Levels>
Lanes errors_of_rows(const float (*x)[kLanes], const float* w, int n, const Lanes& scale) {
  return errors_of_scales<Levels>([x](int j) { return load(x[j]); }, w, n, scale);
}

HWY_INLINE Lanes best_scale(const ScaleTerms& terms) { return terms.xv * reciprocal_or_zero(terms.vv); }

template <typename Levels>
void codes_of_rows(const float (*x)[kLanes], int n, const Lanes& scale, uint8_t (*codes)[kLanes]) {
  const Lanes inverse = reciprocal_or_zero(scale);
  for (int j = 0; j < n; ++j) store_bytes(Levels::code(Levels::nearest(load(x[j]) * inverse)), codes[j]);
}

// Stand-alone binary16 scales: the best of both orientations, or a positive one where the levels are symmetric, then rounding and least
// squares in turn.
template <typename Levels, int n>
Lanes search_f16_scales(const RowGroup<n>& in, const typename RowErrors<Levels, n>::Columns& columns, const Ladder& ladder) {
  const Lanes unit = load(in.unit);
  const auto round = [&unit](const Lanes& scale) { return round_to_f16(scale, unit); };
  const RowErrors<Levels, n> errors(in.x, in.w, columns);
  const Lanes outlier = extremes(in.x, in.w, n);
  RowScales best{splat(0.0f), splat(HUGE_VALF)};
  if (Levels::kLowest == -Levels::kHighest) {
    climb_rows(errors, abs(outlier) * splat(1.0f / Levels::kHighest), ladder, round, best);
  } else {
    climb_rows(errors, outlier * splat(1.0f / Levels::kLowest), ladder, round, best);
    climb_rows(errors, outlier * splat(1.0f / Levels::kHighest), ladder, round, best);
  }
  constexpr int kRefits = 2;
  Lanes scale = best.scale;
  for (int k = 0; k < kRefits; ++k) {
    const ScaleTerms terms = terms_of_rows<Levels>(in.x, in.w, n, scale);
    const Lanes refitted = round(best_scale(terms));
    const auto error = [&](const Lanes& s) { return s * (s * terms.vv - terms.xv - terms.xv); };  // less a constant
    scale = select_less(error(refitted), error(scale), refitted, scale);
  }
  return scale;
}

// Blocks of n weights with one binary16 scale; pack(d, codes, block) makes the block.
template <typename Levels, int n, typename Block, typename Pack>
void encode_with_one_scale(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, const Ladder& ladder, std::byte* out,
                           Pack pack) {
  using Columns = typename RowErrors<Levels, n>::Columns;
  Columns of_errors;
  const auto prepare = [&](const float* w) { of_errors = Columns(w); };
  const auto encode = [&](const RowGroup<n>& group, const auto& put) {
    const Lanes d = search_f16_scales<Levels>(group, of_errors, ladder);
    uint8_t codes[n][kLanes];
    codes_of_rows<Levels>(group.x, n, d, codes);
    alignas(64) float scales[kLanes];
    store(d, scales);
    uint8_t own_codes[kLanes][n];
    rows_of_codes(codes, own_codes);
    put([&](int i, Block& block) { pack(stored_scale(scales[i], group.unit[i]), own_codes[i], block); });
  };
  for_each_group<n, Block>(x, n_rows, importance, n_cols, out, encode, prepare);
}

// Values of l that are tried around the one nearest to a sub-block's own optimum: `size` of them in steps, the first `smaller` nearer to
// zero. Where levels are many, scales above the optimum are worth trying, because other rounding errors of the codes soon outweigh the
// coarser step.
struct Window {
  int size;
  int smaller;
  int step;
};

// Super-blocks. kLowScale..kHighScale is the range of l. Starts try kFirst per sub-block and orientation, refits of the best one kLast.
template <typename Levels, int kSubBlocks, int kLowScale, int kHighScale, Window kFirst, Window kLast = kFirst>
class ScaledRows {
 public:
  static constexpr int kSize = kSuper / kSubBlocks;
  using Errors = RowErrors<Levels, kSize>;
  using Columns = ColumnsOfSubBlocks<Errors, kSize>;
  static_assert(kFirst.size % kScalesAtOnce == 0 && kLast.size % kScalesAtOnce == 0);

  struct Fit {
    Lanes d;
    Lanes error;
    Lanes l[kSubBlocks];
  };

  ScaledRows(const RowGroup<kSuper>& in, const Columns& columns, const Ladder& ladder) : in_(in) {
    const auto keep = [](const Lanes& scale) { return scale; };
    largest_ = splat(0.0f);
    for (int b = 0; b < kSubBlocks; ++b) {
      errors_[b] = Errors(x(b), w(b), columns.of[b]);
      const Lanes outlier = extremes(x(b), w(b), kSize);
      for (const int high : {0, 1}) {
        RowScales best{splat(0.0f), splat(HUGE_VALF)};
        climb_rows(errors_[b], outlier * splat(1.0f / (high != 0 ? Levels::kHighest : Levels::kLowest)), ladder, keep, best);
        const ScaleTerms terms = terms_of_rows<Levels>(x(b), w(b), kSize, best.scale);
        own_[high][b] = select_less(splat(0.0f), terms.vv, best_scale(terms), best.scale);
        largest_ = select_less(abs(largest_), abs(own_[high][b]), own_[high][b], largest_);
      }
    }
  }

  // Starts from d that map the largest sub-block scale to the given values of l; the best one is refitted `rounds` times with d.
  Fit search(const float* targets, int n_targets, int rounds) const {
    Fit best;
    best.error = splat(HUGE_VALF);
    const Lanes unit = load(in_.unit);
    for (int t = 0; t < n_targets; ++t) keep_better(best, with_scales_for<kFirst>(round_to_f16(largest_ * splat(1.0f / targets[t]), unit)));
    for (int round = 0; round < rounds; ++round) keep_better(best, with_scales_for<kLast>(refitted(best)));
    return best;
  }

 private:
  const float (*x(int b) const)[kLanes] { return in_.x + b * kSize; }
  const float* w(int b) const { return in_.w + b * kSize; }

  static void keep_better(Fit& best, const Fit& other) {
    const auto take = [&](Lanes& ours, const Lanes& theirs) { ours = select_less(other.error, best.error, theirs, ours); };
    for (int b = 0; b < kSubBlocks; ++b) take(best.l[b], other.l[b]);
    take(best.d, other.d);
    best.error = min(best.error, other.error);
  }

  // For these d the best l of every sub-block.
  template <Window kWindow>
  HWY_NOINLINE Fit with_scales_for(const Lanes& d) const {
    Fit fit{d, splat(0.0f), {}};
    const Lanes inverse = reciprocal_or_zero(d);
    for (int b = 0; b < kSubBlocks; ++b) {
      Lanes least = splat(HUGE_VALF);
      for (const int high : {0, 1}) {
        const Lanes own = round_to_int(clamp(own_[high][b] * inverse, kLowScale, kHighScale));
        const Lanes away = select_less(own, splat(0.0f), splat(-1.0f), splat(1.0f));
        for (int k = 0; k < kWindow.size; k += kScalesAtOnce) {
          Lanes l[kScalesAtOnce];
          Lanes scale[kScalesAtOnce];
          Lanes error[kScalesAtOnce];
          for (int c = 0; c < kScalesAtOnce; ++c) {
            l[c] = clamp(own + away * splat(static_cast<float>((k + c) * kWindow.step - kWindow.smaller)), kLowScale, kHighScale);
            scale[c] = d * l[c];
          }
          errors_[b].template of_scales<kScalesAtOnce>(scale, error);
          for (int c = 0; c < kScalesAtOnce; ++c) {
            fit.l[b] = select_less(error[c], least, l[c], fit.l[b]);
            least = min(least, error[c]);
          }
        }
      }
      fit.error += least;
    }
    return fit;
  }

  // For the l and codes of a fit the least-squares d.
  Lanes refitted(const Fit& fit) const {
    ScaleTerms sum{splat(0.0f), splat(0.0f)};
    for (int b = 0; b < kSubBlocks; ++b) {
      const ScaleTerms terms = terms_of_rows<Levels>(x(b), w(b), kSize, fit.d * fit.l[b]);
      sum.xv += fit.l[b] * terms.xv;
      sum.vv += fit.l[b] * fit.l[b] * terms.vv;
    }
    return select_less(splat(0.0f), sum.vv, round_to_f16(best_scale(sum), load(in_.unit)), fit.d);
  }

  const RowGroup<kSuper>& in_;
  Errors errors_[kSubBlocks];
  Lanes own_[2][kSubBlocks];  // the scale a sub-block would take alone, with its extreme weight near the lowest or the highest level
  Lanes largest_;
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_SCALED_ROWS_INL_H_
