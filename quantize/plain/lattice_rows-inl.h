// Searches for the lattice types: y = scale * g, g a row of a code book for 4 or 8 weights (a unit), one scale d * (2l + 1) * c per
// sub-block. 16 rows of a matrix side by side. Compiled once per CPU target.
//
// The weighted error of entry g of the book at scale s is  const - 2 s p + s^2 r  with p = sum w x g and r = sum w g^2, where x is
// taken with the sign that g will get. p and r do not depend on s, so each entry is a line in (s, error / s), and the entries that are
// best at some s are the lower envelope of these lines: a handful out of 256 to 2048. So: a first guess s0 of every sub-block's scale, as
// if each weight could choose its level alone; one pass over the book for the best entries of every unit at a few scales around s0; from
// then on these stand for the book, which is cheap and almost exact.
//
// Signs with a parity rule: when the signs of 8 weights have the wrong parity, one element must take the wrong sign, which costs
// 4 s w |x| g for that element, so p becomes p - 2 min_j w |x_j| g_j: again independent of s, and exact together with the choice of g.

#if defined(QUERN_QUANTIZE_LATTICE_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LATTICE_ROWS_INL_H_
#undef QUERN_QUANTIZE_LATTICE_ROWS_INL_H_
#else
#define QUERN_QUANTIZE_LATTICE_ROWS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>
#include <type_traits>

#include "quantize/plain/encoders.h"
#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/lattice_halves-inl.h"
#include "quantize/plain/lattice_parity-inl.h"
#include "quantize/plain/lattice_types-inl.h"
#include "quantize/plain/pack_blocks.h"
#include "quantize/plain/row_group-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// What the scales and the importance make of a book, for the rows of a call.
template <typename Spec>
class ParityLevels {
 public:
  ParityLevels(const float* c, int n) : c_(c), n_(n), units_(std::make_unique_for_overwrite<LatticeTerms<Spec>[]>(kUnits)) {
    static_assert(sizeof(LatticeTerms<Spec>) * kUnits <= lattice_bytes(Spec::kDim, Spec::kEntries));
  }

  void set_importance(const float* w) {
    for (size_t u = 0; u < kUnits; ++u) units_[u].set(w + u * Spec::kDim, c_, n_);
  }

  const LatticeTerms<Spec>& of_unit(int u) const { return units_[static_cast<size_t>(u)]; }

 private:
  static constexpr size_t kUnits = kSuper / Spec::kDim;

  const float* c_;
  int n_;
  std::unique_ptr<LatticeTerms<Spec>[]> units_;
};

template <typename Spec>
class LatticeRows {
 public:
  static constexpr bool kHasParity = is_parity_rule(Spec::kSigns);
  using Levels = std::conditional_t<kHasParity, ParityLevels<Spec>, HalvedLevels<Spec>>;
  static constexpr int kDim = Spec::kDim;
  static constexpr int kUnits = kSuper / kDim;
  static constexpr int kSubBlocks = kSuper / Spec::kSubSize;
  static constexpr int kPerSub = Spec::kSubSize / kDim;

  // The scales of the pass over the book, as multiples of s0: from 1 / kSpread to kSpread, closer together where they are small. Plain
  // arithmetic, because libraries and CPUs disagree about the last bit of powers.
  struct Scales {
    int n = 0;
    float c[kMostBookScales];

    explicit Scales(Effort effort) : n(by_effort(effort, 4, Spec::kLines, 8)) {
      constexpr float kFirst = 1.0f / Spec::kSpread;
      for (int k = 0; k < n; ++k) {
        const float t = static_cast<float>(k) / static_cast<float>(n - 1);
        c[k] = kFirst + (Spec::kSpread - kFirst) * 0.5f * (t + t * t);
      }
    }
  };

  // levels: for these scales and the importance of the group.
  LatticeRows(const RowGroup<kSuper>& in, const Levels& levels, const Scales& scales) : in_(in), levels_(levels), scales_(scales) {
    for (int g = 0; g < kSuper / 8; ++g) {
      Lanes signs = splat(0.0f);
      Lanes product = splat(1.0f);
      for (int j = 0; j < 8; ++j) {
        const Lanes x = load(in.x[8 * g + j]);
        signs += select_less(x, splat(0.0f), splat(static_cast<float>(1 << j)), splat(0.0f));
        product = select_less(x, splat(0.0f), splat(0.0f) - product, product);
      }
      store(signs, negative_[g]);
      store(splat(1.0f) - product, twice_odd_[g]);
    }
    for (int b = 0; b < kSubBlocks; ++b) guess_scale(b);
  }

  void search(Effort effort) {
    effort == Effort::kFast ? find_lines<4>() : effort == Effort::kDefault ? find_lines<Spec::kLines>() : find_lines<8>();
    settle_scales(by_effort(effort, 1, 3, 8), by_effort(effort, 1, 3, 6));
    settle_entries();
  }

  // Stored scale and codes of row i.
  float scale(int i) const { return lane(d_, i); }

  LatticeCodes codes(int i) const {
    LatticeCodes codes;
    for (int b = 0; b < kSubBlocks; ++b) codes.l[b] = static_cast<int>(lane(l_[b], i));
    if (Spec::kSigns != SignRule::kInBook) {
      for (int g = 0; g < kSuper / 8; ++g) codes.signs[g] = static_cast<uint8_t>(static_cast<int>(negative_[g][i]));
    }
    for (int u = 0; u < kUnits; ++u) {
      const auto row = static_cast<int>(row_[u][i]);
      const bool other = set_[u][i] > 0.0f;
      if constexpr (Spec::kBooks == 2) codes.book[u] = other ? 1 : 0;
      if constexpr (!kHasParity) {
        codes.index[u] = the_book<HalvedBook<Spec>>().index_of(row);
      } else {
        codes.index[u] = the_book<SplitBook<Spec>>().index[row];
        if (!(kPaired ? other : twice_odd_[u][i] > 0.0f)) continue;
        const int element = cheapest_flip(u, i, codes.index[u]);
        codes.signs[element / 8] ^= static_cast<uint8_t>(1u << (element % 8));
      }
    }
    return codes;
  }

 private:
  static constexpr bool kPaired = Spec::kSigns == SignRule::kEvenPairs;
  static constexpr int kSets = kSearches<Spec>;

  // A FoundRow in memory.
  struct Line {
    alignas(64) float p[kLanes];
    alignas(64) float r[kLanes];
    alignas(64) float row[kLanes];
  };

  // Sums over units, relative to s0: at scale q s0 the error is  q s0^2 (q r - p), less a constant; cost is the bracket.
  struct Terms {
    Lanes cost;
    Lanes p;
    Lanes r;
  };

  static Terms none() { return {splat(0.0f), splat(0.0f), splat(0.0f)}; }
  static Terms sum(const Terms& a, const Terms& b) { return {a.cost + b.cost, a.p + b.p, a.r + b.r}; }

  // Lane by lane the second where x < y.
  static Terms choose_less(const Lanes& x, const Lanes& y, const Terms& yes, const Terms& no) {
    return {select_less(x, y, yes.cost, no.cost), select_less(x, y, yes.p, no.p), select_less(x, y, yes.r, no.r)};
  }
  static Terms better(const Terms& a, const Terms& b) { return choose_less(b.cost, a.cost, b, a); }

  // The best of a ladder of scales for levels without a book: from kLadderLow to 1.15 times the one that maps the largest weight to the
  // top of the book, closer together where scales are small. Weights that no binary16 scale can reach get any.
  void guess_scale(int b) {
    constexpr int kRungs = 6;
    const int begin = b * Spec::kSubSize;
    const int end = begin + Spec::kSubSize;
    Lanes largest = abs(extremes(in_.x + begin, in_.w + begin, Spec::kSubSize));
    largest = select_less(splat(kSmallestForF16), largest, largest, splat(1.0f));
    Lanes best = splat(HUGE_VALF);
    s0_[b] = largest;
    for (int c = 0; c < kRungs; ++c) {
      const float t = static_cast<float>(c) / (kRungs - 1);
      const float rung = Spec::kLadderLow + (1.15f - Spec::kLadderLow) * 0.5f * (t + t * t);
      const Lanes scale = largest * splat(rung / Spec::kTop);
      const Lanes inverse = splat(1.0f) / scale;
      Lanes error = splat(0.0f);
      for (int j = begin; j < end; ++j) {
        const Lanes v = abs(load(in_.x[j])) * inverse;
        const Lanes rest = v - Spec::nearest(v);
        error += splat(in_.w[j]) * rest * rest;
      }
      error = error * scale * scale;
      s0_[b] = select_less(error, best, scale * splat(Spec::kBookScale), s0_[b]);
      best = min(best, error);
    }
    inverse_[b] = splat(1.0f) / s0_[b];
  }

  Lanes twice_odd(int unit) const { return load(twice_odd_[unit * kDim / 8]); }

  template <int kCount>
  HWY_NOINLINE void find_lines() {
    if constexpr (kHasParity) {
      FoundRow found[kSets * kCount];
      for (int u = 0; u < kUnits; ++u) {
        const LatticeUnit<Spec> unit(levels_.of_unit(u), in_.x + u * kDim, in_.w + u * kDim, inverse_[u / kPerSub], twice_odd(u));
        unit.template find<kCount>(scales_.c, found);
        for (int set = 0; set < kSets; ++set) {
          for (int k = 0; k < kCount; ++k) keep(found[set * kCount + k], lines_[set][u][k]);
        }
      }
    } else {
      constexpr int kFirstPass = (kCount + 1) / 2;  // more at once do not fit into the cache and the registers
      for (int u = 0; u < kUnits; u += 2) {
        const HalvedUnits<Spec> units(levels_, in_.x + u * kDim, in_.w + u * kDim, inverse_[u / kPerSub]);
        for (int set = 0; set < kSets; ++set) {
          find_lines_at<kFirstPass>(units, u, set, 0);
          find_lines_at<kCount - kFirstPass>(units, u, set, kFirstPass);
        }
      }
    }
  }

  template <int kCount>
  void find_lines_at(const HalvedUnits<Spec>& units, int u, int set, int first_scale) {
    FoundRow found[2][kCount];
    units.template find<kCount>(set, first_scale, found);
    for (int unit = 0; unit < 2; ++unit) {
      for (int k = 0; k < kCount; ++k) keep(found[unit][k], lines_[set][u + unit][first_scale + k]);
    }
  }

  static void keep(const FoundRow& found, Line& line) {
    store(found.p, line.p);
    store(found.r, line.r);
    store(found.row, line.row);
  }

  // Of the entry that is best at relative scale q, as far as the lines know the book.
  Terms lowest(int set, int u, const Lanes& q) const {
    Terms best{splat(HUGE_VALF), splat(0.0f), splat(0.0f)};
    for (int k = 0; k < scales_.n; ++k) {
      const Lanes p = load(lines_[set][u][k].p);
      const Lanes r = load(lines_[set][u][k].r);
      best = better(best, {q * r - p, p, r});
    }
    return best;
  }

  Lanes lowest_cost(int set, int u, const Lanes& q) const {
    Lanes best = splat(HUGE_VALF);
    for (int k = 0; k < scales_.n; ++k) best = min(best, q * load(lines_[set][u][k].r) - load(lines_[set][u][k].p));
    return best;
  }

  // The units of a sub-block at relative scale q, and which search each of them takes.
  void units_at_scale(int b, const Lanes& q, Terms (*units)[kPerSub], Lanes* sets) const {
    Lanes costs[kSets][kPerSub];
    for (int set = 0; set < kSets; ++set) {
      for (int k = 0; k < kPerSub; ++k) {
        units[set][k] = lowest(set, b * kPerSub + k, q);
        costs[set][k] = units[set][k].cost;
      }
    }
    choose_sets(b, costs, sets);
  }

  // Sums of a sub-block at relative scale q.
  Terms at_scale(int b, const Lanes& q) const {
    Terms units[kSets][kPerSub];
    Lanes sets[kPerSub];
    units_at_scale(b, q, units, sets);
    return total_of(units, sets);
  }

  Lanes cost_at_scale(int b, const Lanes& q) const {
    Lanes costs[kSets][kPerSub];
    for (int set = 0; set < kSets; ++set) {
      for (int k = 0; k < kPerSub; ++k) costs[set][k] = lowest_cost(set, b * kPerSub + k, q);
    }
    Lanes sets[kPerSub];
    choose_sets(b, costs, sets);
    Lanes total = splat(0.0f);
    for (int k = 0; k < kPerSub; ++k) total += select_less(splat(0.0f), sets[k], costs[kSets - 1][k], costs[0][k]);
    return total;
  }

  // For each unit of a sub-block 1 where the second of its two searches is taken, else 0.
  void choose_sets(int b, const Lanes (*costs)[kPerSub], Lanes* sets) const {
    const Lanes yes = splat(1.0f);
    const Lanes no = splat(0.0f);
    if constexpr (kPaired) {  // one of two units takes the wrong sign
      for (int k = 0; k < kPerSub; k += 2) {
        const Lanes odd = twice_odd(b * kPerSub + k) * splat(0.5f);
        const Lanes flip_first = costs[1][k] + costs[0][k + 1];
        const Lanes flip_second = costs[0][k] + costs[1][k + 1];
        sets[k + 1] = select_less(flip_second, flip_first, odd, no);
        sets[k] = odd - sets[k + 1];
      }
    } else if constexpr (Spec::kBooks == 2) {
      Lanes sums[2] = {no, no};
      for (int k = 0; k < kPerSub; ++k) {
        sets[k] = select_less(costs[1][k], costs[0][k], yes, no);
        for (int set = 0; set < 2; ++set) sums[set] += costs[set][k];
      }
      if (Spec::kSharedBook) std::fill_n(sets, kPerSub, select_less(sums[1], sums[0], yes, no));
    } else {
      std::fill_n(sets, kPerSub, no);
    }
  }

  static Terms total_of(const Terms (*units)[kPerSub], const Lanes* sets) {
    Terms total = none();
    for (int k = 0; k < kPerSub; ++k) total = sum(total, choose_less(splat(0.0f), sets[k], units[kSets - 1][k], units[0][k]));
    return total;
  }

  // d and all l, with their error and the terms of the least-squares problem for d.
  struct Fit {
    Lanes d;
    Lanes error;
    Lanes p;
    Lanes r;
    Lanes l[kSubBlocks];
  };

  static Lanes factor_of(const Lanes& l) { return splat(Spec::kLeastScale) * (splat(1.0f) + l + l); }

  // For these d the better l of every sub-block: the one below or the one above its optimum. p and r only if another round follows.
  template <bool kWithTerms>
  HWY_NOINLINE Fit with_scales_for(const Lanes& d) const {
    Fit fit{d, splat(0.0f), splat(0.0f), splat(0.0f), {}};
    const Lanes inverse = reciprocal_or_zero(d * splat(Spec::kLeastScale));
    for (int b = 0; b < kSubBlocks; ++b) {
      const Lanes lower = round_to_int((optimum_[b] * inverse - splat(2.0f)) * splat(0.5f));
      Lanes best = splat(HUGE_VALF);
      for (int step = 0; step < 2; ++step) {
        const Lanes l = clamp(lower + splat(static_cast<float>(step)), 0.0f, static_cast<float>(Spec::kScales - 1));
        const Lanes q = d * factor_of(l) * inverse_[b];
        const Lanes error = q * cost_at_scale(b, q);
        fit.l[b] = select_less(error, best, l, fit.l[b]);
        best = min(best, error);
      }
      fit.error += best * s0_[b] * s0_[b];
      if constexpr (kWithTerms) {
        const Lanes factor = factor_of(fit.l[b]);
        const Terms terms = at_scale(b, d * factor * inverse_[b]);
        fit.p += factor * terms.p * s0_[b] * splat(0.5f);
        fit.r += factor * factor * terms.r;
      }
    }
    return fit;
  }

  static void keep_better(Fit& best, const Fit& other) {
    const auto take = [&](Lanes& ours, const Lanes& theirs) { ours = select_less(other.error, best.error, theirs, ours); };
    for (int b = 0; b < kSubBlocks; ++b) take(best.l[b], other.l[b]);
    take(best.d, other.d);
    best.error = min(best.error, other.error);
  }

  // The least-squares d; the given one where there is none.
  Lanes refitted(const Lanes& d, const Lanes& p, const Lanes& r) const {
    const Lanes refit = round_to_f16(p * reciprocal_or_zero(r), load(in_.unit));
    return select_less(splat(0.0f), refit, refit, d);
  }

  // Starts from d that map the largest sub-block scale to a few values of l; from each, alternates: for this d the best l of every
  // sub-block, for these l and entries the least-squares d.
  void settle_scales(int n_targets, int rounds) {
    Lanes largest = splat(0.0f);
    for (int b = 0; b < kSubBlocks; ++b) {
      Lanes best = splat(HUGE_VALF);
      Lanes q = splat(scales_.c[0]);
      for (int k = 0; k < scales_.n; ++k) {
        const Lanes error = splat(scales_.c[k]) * cost_at_scale(b, splat(scales_.c[k]));
        q = select_less(error, best, splat(scales_.c[k]), q);
        best = min(best, error);
      }
      const Terms terms = at_scale(b, q);
      optimum_[b] = max(terms.p * reciprocal_or_zero(terms.r) * splat(0.5f) * s0_[b], splat(0.0f));
      largest = max(largest, optimum_[b]);
    }
    Fit best;
    best.error = splat(HUGE_VALF);
    for (int t = 0; t < n_targets; ++t) {
      Lanes d = round_to_f16(largest * splat(1.0f / (Spec::kTargets[t] * Spec::kLeastScale)), load(in_.unit));
      for (int round = 1; round < rounds; ++round) {
        const Fit fit = with_scales_for<true>(d);
        keep_better(best, fit);
        d = refitted(d, fit.p, fit.r);
      }
      keep_better(best, with_scales_for<false>(d));
    }
    d_ = best.d;
    std::copy_n(best.l, kSubBlocks, l_);
  }

  // The entries for the scales found, then the least-squares d for them, where binary16 has a better one.
  HWY_NOINLINE void settle_entries() {
    Lanes p = splat(0.0f);
    Lanes r = splat(0.0f);
    for (int b = 0; b < kSubBlocks; ++b) {
      const Lanes factor = factor_of(l_[b]);
      const Lanes q = d_ * factor * inverse_[b];
      Terms units[kSets][kPerSub];
      Lanes sets[kPerSub];
      units_at_scale(b, q, units, sets);
      for (int k = 0; k < kPerSub; ++k) {
        const int u = b * kPerSub + k;
        store(sets[k], set_[u]);
        store(select_less(splat(0.0f), sets[k], row_at(kSets - 1, u, q), row_at(0, u, q)), row_[u]);
      }
      const Terms total = total_of(units, sets);
      p += factor * total.p * s0_[b] * splat(0.5f);
      r += factor * factor * total.r;
    }
    const Lanes other = refitted(d_, p, r);
    const auto error = [&](const Lanes& v) { return v * (v * r - p - p); };
    d_ = select_less(error(other), error(d_), other, d_);
  }

  // Of the entry that `lowest` finds.
  Lanes row_at(int set, int u, const Lanes& q) const {
    Lanes best = splat(HUGE_VALF);
    Lanes row = splat(0.0f);
    for (int k = 0; k < scales_.n; ++k) {
      const Line& line = lines_[set][u][k];
      const Lanes cost = q * load(line.r) - load(line.p);
      row = select_less(cost, best, load(line.row), row);
      best = min(best, cost);
    }
    return row;
  }

  // Of row i: element of a unit whose wrong sign costs least with the magnitudes of this row of the code book. Costs are compared without
  // their last three bits, which hold the element.
  int cheapest_flip(int u, int i, int index) const {
    const hn::CappedTag<float, kDim> tag;
    const hn::RebindToSigned<decltype(tag)> ints;
    const auto& magnitudes = Spec::rows()[static_cast<size_t>(index)];
    auto least = hn::Set(ints, INT32_MAX);
    for (int j = 0; j < kDim; j += static_cast<int>(hn::MaxLanes(tag))) {
      const int at = u * kDim + j;
      const auto x = hn::Mul(hn::Abs(hn::LoadU(tag, in_.row[i] + at)), hn::Set(tag, in_.down[i]));
      const auto magnitude = hn::PromoteTo(ints, hn::LoadU(hn::Rebind<uint8_t, decltype(tag)>(), magnitudes.data() + j));
      const auto cost = hn::Mul(hn::Mul(hn::LoadU(tag, in_.w + at), x), hn::ConvertTo(tag, magnitude));
      least = hn::Min(least, hn::Or(hn::And(hn::BitCast(ints, cost), hn::Set(ints, ~7)), hn::Iota(ints, j)));
    }
    return u * kDim + (hn::GetLane(hn::MinOfLanes(ints, least)) & 7);
  }

  const RowGroup<kSuper>& in_;
  const Levels& levels_;
  const Scales& scales_;
  alignas(64) float negative_[kSuper / 8][kLanes];  // bit j of the number: element j of 8 is below zero
  alignas(64) float twice_odd_[kSuper / 8][kLanes];
  Lanes s0_[kSubBlocks];
  Lanes inverse_[kSubBlocks];  // 1 / s0
  Lanes optimum_[kSubBlocks];  // the scale a sub-block would take alone
  Line lines_[kSets][kUnits][kMostBookScales];
  Lanes d_;
  Lanes l_[kSubBlocks];
  alignas(64) float row_[kUnits][kLanes];
  alignas(64) float set_[kUnits][kLanes];
};

template <typename Spec, typename Block>
void encode_lattice_rows(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  using Rows = LatticeRows<Spec>;
  const typename Rows::Scales scales(effort);
  typename Rows::Levels levels(scales.c, scales.n);
  const auto prepare = [&](const float* w) {
    if constexpr (Rows::kHasParity) levels.set_importance(w);
  };
  const auto encode = [&](const RowGroup<kSuper>& group, const auto& put) {
    Rows rows(group, levels, scales);
    rows.search(effort);
    put([&](int i, Block& block) { pack_block(stored_scale(rows.scale(i), group.unit[i]), rows.codes(i), block); });
  };
  for_each_group<kSuper, Block>(x, n_rows, importance, n_cols, out, encode, prepare);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LATTICE_ROWS_INL_H_
