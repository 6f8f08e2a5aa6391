// Search for y = (d S) q - (dmin M), 0 <= q <= kMaxCode, S and M integers per sub-block, d and dmin for 256 weights: Q2_K, Q4_K, Q5_K.
// 16 rows of a matrix side by side. Compiled once per CPU target.
//
// Each sub-block first finds its own scale and min: 16 pairs that clip its range by different amounts at either end, the best 8 improved by
// rounding and least squares. These are where the search for d, dmin and the integers begins.

#if defined(QUERN_QUANTIZE_AFFINE_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_AFFINE_ROWS_INL_H_
#undef QUERN_QUANTIZE_AFFINE_ROWS_INL_H_
#else
#define QUERN_QUANTIZE_AFFINE_ROWS_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "quantize/plain/affine_search-inl.h"
#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/levels-inl.h"
#include "quantize/plain/row_errors-inl.h"
#include "quantize/plain/row_group-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

inline constexpr int kPairsAtOnce = 4;

// The errors of many pairs (scale, min) for n weights of 16 rows, in 16 bits, as in row_errors-inl.h. Weights are taken as parts of the
// row's range, from its least weight on. Codes may lie up to kBeyond steps outside 0..kMaxCode before they are clipped.
template <int kMaxCode, int kBeyond, int n>
class AffineRowErrors {
 public:
  // What the importance of the columns gives for every row alike.
  struct Columns {
    Columns() = default;
    explicit Columns(const float* w) : heaviest(*std::max_element(w, w + n)) {
      for (int j = 0; j < n; ++j) sum += w[j];
      for (int j = 0; j < n; ++j) share[j] = w[j] / heaviest;
      pair_numbers<n>([&](int j) { return share[j] * kMostWeight; }, weights);
      pair_roots<n>(w, kMostRoot, roots);
    }

    float heaviest = 0.0f;
    float sum = 0.0f;
    float share[n];          // of the heaviest
    int32_t weights[n / 2];  // two importances each
    int32_t roots[n / 2];    // their roots
  };

  AffineRowErrors() = default;

  // Element j of row i: x[j][i], importance w[j], of which `columns`, which is referred to, was made.
  AffineRowErrors(const float (*x)[kLanes], const float* w, const Columns& columns) : columns_(&columns) {
    low = load(x[0]);
    high = low;
    Lanes wx = splat(0.0f);
    wxx_ = splat(0.0f);
    for (int j = 0; j < n; ++j) {
      const Lanes value = load(x[j]);
      low = min(low, value);
      high = max(high, value);
      wx += splat(w[j]) * value;
      wxx_ += splat(w[j]) * value * value;
    }
    sum_wx = wx;
    range_ = max(high - low, splat(0x1p-60f));
    const Lanes to_short = splat(kMostShort) / range_;
    pair_weights<n>([&](int j) { return (load(x[j]) - low) * to_short; }, x_);
    pair_weights<n>([&](int j) { return (load(x[j]) - low) * (to_short * splat(columns.share[j])); }, wx_);
    to_wx_ = range_ * splat(columns.heaviest / kMostShort);
  }

  float sum_w() const { return columns_->sum; }

  // error[c]: sum w (x - scale[c] q + min[c])^2 with the best codes. Pairs that would clip more count as if all codes were 0.
  template <int kCount>
  HWY_INLINE void of_pairs(const Lanes* scale, const Lanes* min, Lanes* error) const {
    const PartTag tag;
    for (int part = 0; part < kParts; ++part) {
      const FixedPairs<kCount> fixed(*this, part, scale, min, 0);
      IntPart sum[kCount];
      for (int c = 0; c < kCount; ++c) sum[c] = hn::Zero(IntPartTag());
      for (int j = 0; j < n / 2; ++j) {
        const ShortPart root = every_pair(columns_->roots[j]);
        for (int c = 0; c < kCount; ++c) {
          const ShortPart rest = multiply_fixed(rest_of<0, kMaxCode, kFraction>(fixed.code(x_[j][part], c)), root);
          sum[c] = add_products_of_pairs(sum[c], rest, rest);
        }
      }
      for (int c = 0; c < kCount; ++c) {
        const Part usable = fixed.usable[c];
        const Part squared = hn::Mul(hn::Mul(usable, usable), hn::Set(tag, columns_->heaviest * kToError));
        const Part m = min[c].part[part];
        const Part without_codes =
            hn::Add(wxx_.part[part], hn::Mul(m, hn::Add(hn::Mul(m, hn::Set(tag, sum_w())), hn::Add(sum_wx.part[part], sum_wx.part[part]))));
        error[c].part[part] = hn::IfThenElse(hn::Eq(usable, hn::Zero(tag)), without_codes, hn::Mul(hn::ConvertTo(tag, sum[c]), squared));
      }
    }
  }

  // The sums of the best codes of each pair, those of of_pairs; zeros where it would clip more.
  template <int kCount>
  HWY_INLINE void sums_of_pairs(const Lanes* scale, const Lanes* min, AffineSums* sums) const {
    const PartTag tag;
    for (int part = 0; part < kParts; ++part) {
      const FixedPairs<kCount> fixed(*this, part, scale, min, 1 << (kFraction - 1));
      IntPart q[kCount];
      IntPart qq[kCount];
      IntPart xq[kCount];
      for (int c = 0; c < kCount; ++c) q[c] = qq[c] = xq[c] = hn::Zero(IntPartTag());
      for (int j = 0; j < n / 2; ++j) {
        const ShortPart w = every_pair(columns_->weights[j]);
        for (int c = 0; c < kCount; ++c) {
          const ShortPart code = clamp(shift_right<kFraction>(fixed.code(x_[j][part], c)), 0, kMaxCode);
          q[c] = add_products_of_pairs(q[c], code, w);
          qq[c] = add_products_of_pairs(qq[c], code * code, w);
          xq[c] = add_products_of_pairs(xq[c], code, wx_[j][part]);
        }
      }
      for (int c = 0; c < kCount; ++c) {
        const auto real = [&](IntPart sum, Part unit) {
          return hn::IfThenElse(hn::Eq(fixed.usable[c], hn::Zero(tag)), hn::Zero(tag), hn::Mul(hn::ConvertTo(tag, sum), unit));
        };
        sums[c].q.part[part] = real(q[c], hn::Set(tag, columns_->heaviest / kMostWeight));
        sums[c].qq.part[part] = real(qq[c], hn::Set(tag, columns_->heaviest / kMostWeight));
        sums[c].xq.part[part] = hn::Add(real(xq[c], to_wx_.part[part]), hn::Mul(low.part[part], sums[c].q.part[part]));
      }
    }
  }

  Lanes low;  // least and largest weight of each row
  Lanes high;
  Lanes sum_wx;

 private:
  static constexpr int kFraction = 15 - std::bit_width(static_cast<unsigned>(kMaxCode + kBeyond));
  static constexpr float kMostRoot = most_root(static_cast<float>(kBeyond << kFraction), n);
  static constexpr float kToError = power_of_two(30 - 2 * kFraction) / (kMostRoot * kMostRoot);
  static constexpr float kMostWeight = 16384.0f;  // times the square of a code and n: less than 2^31

  // What makes codes of weights in fixed point: of weight x, x inverse + offset.
  template <int kCount>
  struct FixedPairs {
    ShortPart inverse[kCount];
    ShortPart offset[kCount];
    Part usable[kCount];  // the scale, or 0

    HWY_INLINE FixedPairs(const AffineRowErrors& of, int part, const Lanes* scale, const Lanes* min, int more) {
      const PartTag tag;
      const Part range = of.range_.part[part];
      for (int c = 0; c < kCount; ++c) {
        const Part s = scale[c].part[part];
        const Part above = hn::Add(of.low.part[part], min[c].part[part]);
        const Part most = hn::Mul(s, hn::Set(tag, static_cast<float>(kMaxCode + kBeyond)));
        const auto fits =
            hn::And(hn::Lt(hn::Add(above, range), most), hn::Lt(hn::Mul(s, hn::Set(tag, -static_cast<float>(kBeyond))), above));
        usable[c] = hn::IfThenElseZero(fits, s);
        const Part one = hn::IfThenElseZero(fits, hn::Div(hn::Set(tag, static_cast<float>(1 << kFraction)), s));
        const IntPart whole = to_int(hn::Mul(hn::Mul(range, one), hn::Set(tag, 32768.0f / kMostShort)));
        const IntPart start = hn::Add(to_int(hn::Mul(above, one)), hn::Set(IntPartTag(), more));
        inverse[c] = pair_up(whole, whole);
        offset[c] = pair_up(start, start);
      }
    }

    HWY_INLINE ShortPart code(ShortPart x, int c) const { return multiply_fixed(x, inverse[c]) + offset[c]; }
  };

  const Columns* columns_;
  Lanes range_;
  Lanes wxx_;  // sum w x^2
  Lanes to_wx_;
  ShortPart x_[n / 2][kParts];
  ShortPart wx_[n / 2][kParts];
};

struct RowPairs {
  Lanes error;
  Lanes scale;
  Lanes min;
};

inline constexpr int kFirstPairs = 16;

// Into the sorted list of the best.
template <int kKept>
HWY_INLINE void insert(RowPairs pair, RowPairs (&best)[kKept]) {
  for (RowPairs& place : best) {
    const auto swap = [&](Lanes& kept, Lanes& offered) {
      const Lanes winner = select_less(pair.error, place.error, offered, kept);
      offered = select_less(pair.error, place.error, kept, offered);
      kept = winner;
    };
    swap(place.scale, pair.scale);
    swap(place.min, pair.min);
    const Lanes larger = max(place.error, pair.error);
    place.error = min(place.error, pair.error);
    pair.error = larger;
  }
}

// The best of 16 pairs that clip the range by different amounts at either end, of which the better kKept are improved by rounding and least
// squares. round(member) rounds the members of a pair: to binary16, or not at all where a super-block rounds them later.
template <int kKept, int kMaxCode, int kBeyond, int n, typename Round>
RowPairs search_pairs(const AffineRowErrors<kMaxCode, kBeyond, n>& errors, const AffineStarts& how, Round round) {
  const Lanes zero = splat(0.0f);
  const Lanes low = how.nonnegative_min ? min(errors.low, zero) : errors.low;
  const Lanes range = errors.high - low;
  RowPairs best[kKept];
  for (RowPairs& pair : best) pair = {splat(HUGE_VALF), zero, zero};
  for (int k = 0; k < kFirstPairs; k += kPairsAtOnce) {
    Lanes scale[kPairsAtOnce];
    Lanes offset[kPairsAtOnce];
    Lanes error[kPairsAtOnce];
    const float covered = 1.05f - how.clip_step * static_cast<float>(k / 4);
    for (int c = 0; c < kPairsAtOnce; ++c) {
      const float below = static_cast<float>(c) / 3.0f;  // share of the clipped part that is taken from the low end
      const Lanes start = zero - (low + range * splat((1.0f - covered) * below));
      scale[c] = round(range * splat(covered / kMaxCode));
      offset[c] = round(how.nonnegative_min ? max(start, zero) : start);
    }
    if constexpr (kKept < kFirstPairs) {
      errors.template of_pairs<kPairsAtOnce>(scale, offset, error);
      for (int c = 0; c < kPairsAtOnce; ++c) insert({error[c], scale[c], offset[c]}, best);
    } else {
      for (int c = 0; c < kPairsAtOnce; ++c) best[k + c] = {zero, scale[c], offset[c]};
    }
  }
  RowPairs found{splat(HUGE_VALF), zero, zero};
  for (int k = 0; k < kKept; k += kPairsAtOnce) {
    Lanes scale[kPairsAtOnce];
    Lanes offset[kPairsAtOnce];
    Lanes error[kPairsAtOnce];
    for (int c = 0; c < kPairsAtOnce; ++c) {
      scale[c] = best[k + c].scale;
      offset[c] = best[k + c].min;
    }
    for (int step = 0; step < how.rounds; ++step) {
      AffineSums sums[kPairsAtOnce];
      errors.template sums_of_pairs<kPairsAtOnce>(scale, offset, sums);
      for (int c = 0; c < kPairsAtOnce; ++c) {
        solve_affine(sums[c], splat(errors.sum_w()), errors.sum_wx, how.nonnegative_min, scale[c], offset[c]);
        scale[c] = round(scale[c]);
        offset[c] = round(offset[c]);
      }
    }
    errors.template of_pairs<kPairsAtOnce>(scale, offset, error);
    for (int c = 0; c < kPairsAtOnce; ++c) {
      found.scale = select_less(error[c], found.error, scale[c], found.scale);
      found.min = select_less(error[c], found.error, offset[c], found.min);
      found.error = min(found.error, error[c]);
    }
  }
  return found;
}

inline void affine_codes_of_rows(const float (*x)[kLanes], int n, float max_code, const Lanes& scale, const Lanes& min,
                                 uint8_t (*codes)[kLanes]) {
  const Lanes inverse = reciprocal_or_zero(scale);
  for (int j = 0; j < n; ++j) store_bytes(affine_code(load(x[j]), min, inverse, max_code), codes[j]);
}

template <int kSubBlocks, int kCodes, int kMaxScale, int kBeyond>
class AffineRows {
 public:
  static constexpr int kMaxCode = kCodes;
  static constexpr int kSize = kSuper / kSubBlocks;
  using Errors = AffineRowErrors<kMaxCode, kBeyond, kSize>;
  using Columns = ColumnsOfSubBlocks<Errors, kSize>;

  struct Fit {
    Lanes d;
    Lanes dmin;
    Lanes error;
    Lanes scale[kSubBlocks];
    Lanes min[kSubBlocks];
  };

  // A start maps the largest scale and the largest min of the sub-blocks to these integers.
  struct Start {
    float scale_target;
    float min_target;
  };

  // clip_step: how much less of the range each further quadruple of first pairs covers. rounds: of rounding and least squares.
  AffineRows(const RowGroup<kSuper>& in, const Columns& columns, float clip_step, int rounds) : in_(in) {
    largest_scale_ = splat(0.0f);
    largest_min_ = splat(0.0f);
    for (int b = 0; b < kSubBlocks; ++b) {
      errors_[b] = Errors(x(b), w(b), columns.of[b]);
      find_own(b, clip_step, rounds);
      largest_scale_ = max(largest_scale_, own_scale_[b]);
      largest_min_ = max(largest_min_, own_min_[b]);
    }
  }

  // Starts try few pairs around a sub-block's own, because the best of them is refitted `rounds` times with d and dmin, and then tries
  // more.
  Fit search(const Start* starts, int n_starts, int rounds) const {
    Fit best;
    best.error = splat(HUGE_VALF);
    const Lanes unit = load(in_.unit);
    for (int s = 0; s < n_starts; ++s) {
      const Lanes d = round_to_f16(largest_scale_ * splat(1.0f / starts[s].scale_target), unit);
      const Lanes dmin = round_to_f16(largest_min_ * splat(1.0f / starts[s].min_target), unit);
      Fit fit{d, dmin, splat(0.0f), {}, {}};
      const Lanes inverse = reciprocal_or_zero(d);
      const Lanes min_inverse = reciprocal_or_zero(dmin);
      for (int b = 0; b < kSubBlocks; ++b) {
        static constexpr float kSteps[][2] = {{0, 0}, {-1, 0}, {1, 0}, {0, 1}};
        const Lanes scale = round_to_int(clamp(own_scale_[b] * inverse, 0.0f, kMaxScale));
        const Lanes min = round_to_int(clamp(own_min_[b] * min_inverse, 0.0f, kMaxScale));
        choose_pair(b, scale, min, kSteps, fit);
      }
      keep_better(best, fit);
    }
    Fit last = best;
    for (int round = 0; round < rounds; ++round) {
      Fit fit = refitted(last);
      for (int b = 0; b < kSubBlocks; ++b) {
        static constexpr float kSteps[][2] = {{0, 0}, {-1, -2}, {0, -2}, {1, -2}, {-1, -1}, {0, -1}, {1, -1}, {-1, 0},
                                              {1, 0}, {-1, 1},  {0, 1},  {1, 1},  {-1, 2},  {0, 2},  {1, 2},  {0, 3}};
        choose_pair(b, last.scale[b], last.min[b], kSteps, fit);
      }
      keep_better(best, fit);
      last = fit;
    }
    return best;
  }

 private:
  const float (*x(int b) const)[kLanes] { return in_.x + b * kSize; }
  const float* w(int b) const { return in_.w + b * kSize; }

  // The pair a sub-block would take alone.
  HWY_NOINLINE void find_own(int b, float clip_step, int rounds) {
    const auto keep = [](const Lanes& member) { return member; };
    const RowPairs own = search_pairs<8>(errors_[b], {kMaxCode, clip_step, rounds, true}, keep);
    own_scale_[b] = own.scale;
    own_min_[b] = own.min;
  }

  // Takes the best of some pairs around (scale, offset) and adds its error.
  template <int kPairs>
  HWY_INLINE void choose_pair(int b, const Lanes& scale, const Lanes& offset, const float (&steps)[kPairs][2], Fit& fit) const {
    Lanes least = splat(HUGE_VALF);
    for (int k = 0; k < kPairs; k += kPairsAtOnce) {
      Lanes s[kPairsAtOnce];
      Lanes m[kPairsAtOnce];
      Lanes scales[kPairsAtOnce];
      Lanes mins[kPairsAtOnce];
      Lanes error[kPairsAtOnce];
      for (int c = 0; c < kPairsAtOnce; ++c) {
        s[c] = clamp(scale + splat(steps[k + c][0]), 0.0f, kMaxScale);
        m[c] = clamp(offset + splat(steps[k + c][1]), 0.0f, kMaxScale);
        scales[c] = fit.d * s[c];
        mins[c] = fit.dmin * m[c];
      }
      errors_[b].template of_pairs<kPairsAtOnce>(scales, mins, error);
      for (int c = 0; c < kPairsAtOnce; ++c) {
        fit.scale[b] = select_less(error[c], least, s[c], fit.scale[b]);
        fit.min[b] = select_less(error[c], least, m[c], fit.min[b]);
        least = min(least, error[c]);
      }
    }
    fit.error += least;
  }

  static void keep_better(Fit& best, const Fit& other) {
    const auto take = [&](Lanes& ours, const Lanes& theirs) { ours = select_less(other.error, best.error, theirs, ours); };
    for (int b = 0; b < kSubBlocks; ++b) {
      take(best.scale[b], other.scale[b]);
      take(best.min[b], other.min[b]);
    }
    take(best.d, other.d);
    take(best.dmin, other.dmin);
    best.error = min(best.error, other.error);
  }

  // A fit without integers, with the least-squares d and dmin of sum w (x - d S q + dmin M)^2 for those of another; what has none stays.
  HWY_NOINLINE Fit refitted(const Fit& fit) const {
    const Lanes zero = splat(0.0f);
    Lanes ss = zero;
    Lanes sm = zero;
    Lanes mm = zero;
    Lanes xs = zero;
    Lanes xm = zero;
    for (int b = 0; b < kSubBlocks; ++b) {
      const Lanes& s = fit.scale[b];
      const Lanes& m = fit.min[b];
      const Lanes scale = fit.d * s;
      const Lanes offset = fit.dmin * m;
      AffineSums sums;
      errors_[b].template sums_of_pairs<1>(&scale, &offset, &sums);
      ss += s * s * sums.qq;
      sm += s * m * sums.q;
      mm += m * m * splat(errors_[b].sum_w());
      xs += s * sums.xq;
      xm += m * errors_[b].sum_wx;
    }
    const Lanes unit = load(in_.unit);
    const Lanes det = ss * mm - sm * sm;
    const Lanes solvable = splat(1e-5f) * ss * mm;
    const Lanes dmin = select_less(solvable, det, (sm * xs - ss * xm) / det, splat(-1.0f));
    const Lanes d = (mm * xs - sm * xm) / det;
    const Lanes alone = select_less(zero, ss, xs / ss, fit.d);
    return {
        round_to_f16(select_less(dmin, zero, alone, d), unit), select_less(dmin, zero, fit.dmin, round_to_f16(dmin, unit)), zero, {}, {}};
  }

  const RowGroup<kSuper>& in_;
  Errors errors_[kSubBlocks];
  Lanes own_scale_[kSubBlocks];
  Lanes own_min_[kSubBlocks];
  Lanes largest_scale_;
  Lanes largest_min_;
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_AFFINE_ROWS_INL_H_
