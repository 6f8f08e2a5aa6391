// Searches for the lattice types: y = scale * g, g a row of a code book for 4 or 8 weights (a unit), one scale d * (2l + 1) * c per
// sub-block. Compiled once per CPU target.
//
// The weighted error of entry e of the book at scale s is  const - 2 s p + s^2 r  with p = sum w x g and r = sum w g^2, where x is
// taken with the sign that g will get. p and r do not depend on s, so each entry is a line in (s, error / s), and the entries that are
// best at some s are the lower envelope of these lines: a handful out of 256 to 2048. One pass over the whole book finds, for 16 scales
// over the useful range at once, the best entry of every unit; these at most 16 lines per unit then stand for the book while d and
// the l of all sub-blocks are searched, which is cheap and almost exact. In the end the book is searched once more, exactly, for the
// scales that were chosen.
//
// Signs with a parity rule: when the signs of 8 weights have the wrong parity, one element must take the wrong sign, which costs
// 4 s w |x| g for that element, so p becomes p - 2 min_j w |x_j| g_j: again independent of s, and exact together with the choice of g.

#if defined(QUERN_QUANTIZE_LATTICE_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LATTICE_SEARCH_INL_H_
#undef QUERN_QUANTIZE_LATTICE_SEARCH_INL_H_
#else
#define QUERN_QUANTIZE_LATTICE_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <iterator>

#include "formats/codebooks.h"
#include "quantize/block_weights.h"
#include "quantize/lanes-inl.h"
#include "quantize/scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// A code book with 16 entries side by side, as values plus an offset and their squares.
template <int kDim, int kEntries>
struct LatticeBook {
  alignas(64) float value[kEntries / kLanes][kDim][kLanes];
  alignas(64) float square[kEntries / kLanes][kDim][kLanes];

  template <typename T>
  LatticeBook(const Codebook<T, kEntries, kDim>& rows, float offset) {
    for (size_t e = 0; e < kEntries; ++e) {
      for (size_t j = 0; j < kDim; ++j) {
        const float v = static_cast<float>(rows[e][j]) + offset;
        value[e / kLanes][j][e % kLanes] = v;
        square[e / kLanes][j][e % kLanes] = v * v;
      }
    }
  }
};

// What a unit asks of a book: skip it, all elements with their own sign, or with one element flipped.
enum class Signs : uint8_t { kSkip, kOwn, kOneFlipped };

// Lines of 16 entries of a book: p and r of each.
struct LineTerms {
  Lanes p;
  Lanes r;
};

template <int kDim, int kEntries>
HWY_INLINE LineTerms line_terms(const LatticeBook<kDim, kEntries>& book, int block, const float* wx, const float* w, Signs signs) {
  LineTerms terms{splat(0.0f), splat(0.0f)};
  Lanes cheapest = splat(HUGE_VALF);
  for (int j = 0; j < kDim; ++j) {
    const Lanes product = splat(wx[j]) * load(book.value[block][j]);
    terms.p += product;
    terms.r += splat(w[j]) * load(book.square[block][j]);
    if (signs == Signs::kOneFlipped) cheapest = min(cheapest, product);
  }
  if (signs == Signs::kOneFlipped) terms.p = terms.p - (cheapest + cheapest);
  return terms;
}

// The entries of a unit that are best at the 16 scales of a ladder.
struct Envelope {
  float p[kLanes];
  float r[kLanes];
  uint16_t index[kLanes];
  int size;  // neighbouring scales often share an entry
};

HWY_INLINE Lanes lowest(const Envelope& envelope, const Lanes& s) {
  const Lanes squared = s * s;
  const Lanes doubled = s + s;
  Lanes best = splat(HUGE_VALF);
  for (int c = 0; c < envelope.size; ++c) best = min(best, squared * splat(envelope.r[c]) - doubled * splat(envelope.p[c]));
  return best;
}

struct Entry {
  float cost = HUGE_VALF;
  float p = 0.0f;
  float r = 0.0f;
  int index = 0;
};

inline Entry lowest_at(const Envelope& envelope, float s) {
  Entry best;
  for (int c = 0; c < envelope.size; ++c) {
    const float cost = s * s * envelope.r[c] - (s + s) * envelope.p[c];
    if (cost < best.cost) best = {cost, envelope.p[c], envelope.r[c], envelope.index[c]};
  }
  return best;
}

// Exact search of the whole book at one scale.
template <int kDim, int kEntries>
Entry lowest_of_book(const LatticeBook<kDim, kEntries>& book, const float* wx, const float* w, Signs signs, float s) {
  Lanes best = splat(HUGE_VALF);
  Lanes best_block = splat(0.0f);
  for (int block = 0; block < kEntries / kLanes; ++block) {
    const LineTerms terms = line_terms(book, block, wx, w, signs);
    const Lanes cost = splat(s * s) * terms.r - splat(s + s) * terms.p;
    best_block = select_less(cost, best, splat(static_cast<float>(block)), best_block);
    best = min(best, cost);
  }
  const BestLane found = minimum(best);
  const int block = static_cast<int>(lane(best_block, found.lane));
  const LineTerms terms = line_terms(book, block, wx, w, signs);
  return {found.value, lane(terms.p, found.lane), lane(terms.r, found.lane), block * kLanes + found.lane};
}

// Finds the entries within their blocks of 16: best_block is the block per scale.
template <int kDim, int kEntries>
void resolve_envelope(const LatticeBook<kDim, kEntries>& book, const float* wx, const float* w, Signs signs, const Lanes& ladder,
                      const Lanes& best_block, Envelope& envelope) {
  alignas(64) float scales[kLanes];
  alignas(64) float blocks[kLanes];
  alignas(64) float p[kLanes];
  alignas(64) float r[kLanes];
  store(ladder, scales);
  store(best_block, blocks);
  int known = -1;
  envelope.size = 0;
  for (int c = 0; c < kLanes; ++c) {
    const int block = static_cast<int>(blocks[c]);
    if (block != known) {
      const LineTerms terms = line_terms(book, block, wx, w, signs);
      store(terms.p, p);
      store(terms.r, r);
      known = block;
    }
    const int e = minimum(splat(scales[c]) * load(r) - (load(p) + load(p))).lane;
    const auto index = static_cast<uint16_t>(block * kLanes + e);
    if (envelope.size > 0 && envelope.index[envelope.size - 1] == index) continue;
    envelope.p[envelope.size] = p[e];
    envelope.r[envelope.size] = r[e];
    envelope.index[envelope.size++] = index;
  }
}

// Envelopes of all units of a super-block. wx, w: 256 each; signs per unit; ladder: 16 scales per sub-block. The units go through each
// 16 entries together, so that the book is read once per super-block. The pass over the book is the whole cost of these encoders; it
// compares errors divided by s, and remembers blocks of 16 entries only: which of the 16 it was is found again afterwards.
template <int kDim, int kEntries, int kUnitsPerSubBlock>
void find_envelopes(const LatticeBook<kDim, kEntries>& book, const float* wx, const float* w, const Signs* signs, const Lanes* ladder,
                    Envelope* envelopes) {
  constexpr int kUnits = 256 / kDim;
  Lanes best[kUnits];
  Lanes best_block[kUnits];
  for (int u = 0; u < kUnits; ++u) {
    best[u] = splat(HUGE_VALF);
    best_block[u] = splat(0.0f);
  }
  for (int block = 0; block < kEntries / kLanes; ++block) {
    for (int u = 0; u < kUnits; ++u) {
      if (signs[u] == Signs::kSkip) continue;
      alignas(64) float doubled_p[kLanes];
      alignas(64) float r[kLanes];
      const LineTerms terms = line_terms(book, block, wx + u * kDim, w + u * kDim, signs[u]);
      store(terms.p + terms.p, doubled_p);
      store(terms.r, r);
      const Lanes s = ladder[u / kUnitsPerSubBlock];
      Lanes lowest = splat(HUGE_VALF);
      for (int e = 0; e < kLanes; ++e) lowest = min(lowest, s * splat(r[e]) - splat(doubled_p[e]));
      best_block[u] = select_less(lowest, best[u], splat(static_cast<float>(block)), best_block[u]);
      best[u] = min(best[u], lowest);
    }
  }
  for (int u = 0; u < kUnits; ++u) {
    if (signs[u] != Signs::kSkip) {
      resolve_envelope(book, wx + u * kDim, w + u * kDim, signs[u], ladder[u / kUnitsPerSubBlock], best_block[u], envelopes[u]);
    }
  }
}

// What the search settles for each unit: the row of the book, which of the type's books (IQ1: sign of delta), and whether the unit has
// the flipped element of a wrong parity.
struct UnitChoice {
  int index = 0;
  int book = 0;
  bool flipped = false;
};

// The search over d and the l of all sub-blocks, common to all lattice types. Type provides
//   kDim, kEntries, kSubSize, kScales (number of values of l), kTop (largest magnitude in the book), kLadderLow, kTargets,
//   scale(d, l), and for a sub-block b at a scale: costs(b, Lanes) and choose(b, s, exact, UnitChoice*, p, r).
template <typename Type>
class LatticeSuperBlock {
 public:
  static constexpr int kSubBlocks = 256 / Type::kSubSize;
  static constexpr int kUnits = 256 / Type::kDim;

  struct Fit {
    float d = 0.0f;
    int l[kSubBlocks] = {};
    UnitChoice units[kUnits] = {};
    double error = HUGE_VAL;
  };

  // The ladder of scales of a sub-block: from kLadderLow to 1.15 times the one that maps its extreme weight to the top of the book.
  static Lanes ladder(const float* x, const float* w) {
    alignas(64) float rungs[kLanes];
    float largest = std::fabs(extreme(x, w, Type::kSubSize));
    if (!(largest > 0.0f)) largest = 1.0f;
    for (int c = 0; c < kLanes; ++c) {
      const float t = static_cast<float>(c) / (kLanes - 1);
      const float rung = Type::kLadderLow + (1.15f - Type::kLadderLow) * 0.5f * (t + t * t);  // closer together where scales are small
      rungs[c] = largest / Type::kTop * rung;
    }
    return load(rungs);
  }

  LatticeSuperBlock(const Type& type, const Lanes* ladders, float unit) : type_(type), unit_(unit) {
    for (int b = 0; b < kSubBlocks; ++b) {
      float s = lane(ladders[b], minimum(type.costs(b, ladders[b])).lane);
      Fit scratch;
      double p = 0.0;
      double r = 0.0;
      type.choose(b, s, false, scratch.units, p, r);
      if (p > 0.0 && r > 0.0) s = static_cast<float>(p / r);
      if (p > 0.0) largest_ = std::max(largest_, s);
    }
  }

  Fit search(Effort effort) const {
    Fit best;
    for (int t = 0; t < by_effort(effort, 1, 4, static_cast<int>(std::size(Type::kTargets))); ++t) {
      const float d = largest_ / (Type::kTargets[t] * Type::scale(1.0f, 0));
      const Fit fit = descend(d, by_effort(effort, 1, 3, 6));
      if (fit.error < best.error) best = fit;
    }
    if (effort == Effort::kFast) return best;
    polish(best);
    for (int round = 0; effort == Effort::kBest && round < 3; ++round) {
      if (!move_scales(best)) break;
    }
    return best;
  }

 private:
  // Alternates: for this d the best l of every sub-block; for these l and entries the least-squares d.
  Fit descend(float d, int max_rounds) const {
    Fit best;
    d = to_f16(d, unit_);
    for (int round = 0; round < max_rounds; ++round) {
      Fit fit;
      fit.d = d;
      fit.error = 0.0;
      double p = 0.0;
      double r = 0.0;
      for (int b = 0; b < kSubBlocks; ++b) {
        fit.l[b] = best_l(b, d);
        fit.error += choose(b, false, fit, p, r);
      }
      if (!(fit.error < best.error)) break;
      best = fit;
      if (!(p > 0.0 && r > 0.0)) break;
      d = to_f16(p / r, unit_);
      if (d == best.d) break;
    }
    return best;
  }

  int best_l(int b, float d) const {
    alignas(64) float scales[kLanes];
    for (int c = 0; c < kLanes; ++c) scales[c] = Type::scale(d, std::min(c, Type::kScales - 1));
    return std::min(minimum(type_.costs(b, load(scales))).lane, Type::kScales - 1);
  }

  // Settles the units of sub-block b and adds to the normal equation of d. Returns the error, less the constant sum w x^2.
  double choose(int b, bool exact, Fit& fit, double& p, double& r) const {
    double sub_p = 0.0;
    double sub_r = 0.0;
    const float s = Type::scale(fit.d, fit.l[b]);
    type_.choose(b, s, exact, fit.units, sub_p, sub_r);
    const double factor = static_cast<double>(Type::scale(1.0f, fit.l[b]));
    p += factor * sub_p;
    r += factor * factor * sub_r;
    return static_cast<double>(s) * (static_cast<double>(s) * sub_r - 2.0 * sub_p);
  }

  // Exact entries for the scales found, then the least-squares d for these entries if binary16 has a better one.
  void polish(Fit& fit) const {
    double p = 0.0;
    double r = 0.0;
    for (int b = 0; b < kSubBlocks; ++b) choose(b, true, fit, p, r);
    if (!(p > 0.0 && r > 0.0)) return;
    const float d = to_f16(p / r, unit_);
    const auto error = [p, r](double value) { return value * (value * r - 2.0 * p); };
    if (error(static_cast<double>(d)) < error(static_cast<double>(fit.d))) fit.d = d;
  }

  // Every sub-block tries the neighbours of its l, then d is refitted, all by exact search of the book. False when nothing improved.
  bool move_scales(Fit& fit) const {
    Fit moved = fit;
    double p = 0.0;
    double r = 0.0;
    double before = 0.0;
    double after = 0.0;
    for (int b = 0; b < kSubBlocks; ++b) {
      Fit own = fit;
      double own_p = 0.0;
      double own_r = 0.0;
      double least = choose(b, true, own, own_p, own_r);
      before += least;
      for (const int step : {-1, 1}) {
        Fit other = fit;
        other.l[b] = std::clamp(fit.l[b] + step, 0, Type::kScales - 1);
        double other_p = 0.0;
        double other_r = 0.0;
        const double error = choose(b, true, other, other_p, other_r);
        if (!(error < least)) continue;
        least = error;
        own = other;
        own_p = other_p;
        own_r = other_r;
      }
      after += least;
      p += own_p;
      r += own_r;
      constexpr int kPerSubBlock = Type::kSubSize / Type::kDim;
      moved.l[b] = own.l[b];
      std::copy_n(own.units + b * kPerSubBlock, kPerSubBlock, moved.units + b * kPerSubBlock);
    }
    const auto error_at = [p, r](double value) { return value * (value * r - 2.0 * p); };
    if (p > 0.0 && r > 0.0) {
      const float d = to_f16(p / r, unit_);
      if (error_at(static_cast<double>(d)) < error_at(static_cast<double>(fit.d))) {
        after += error_at(static_cast<double>(d)) - error_at(static_cast<double>(fit.d));
        moved.d = d;
      }
    }
    if (!(after < before)) return false;
    fit = moved;
    return true;
  }

  const Type& type_;
  float unit_;
  float largest_ = 0.0f;
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LATTICE_SEARCH_INL_H_
