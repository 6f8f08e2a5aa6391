// Code books whose signs obey a parity rule, as the search over rows reads them. Compiled once per CPU target.
//
// For 16 rows of a matrix side by side (the lanes) and a unit of 4 or 8 weights the error of entry g at scale s, divided by s and less a
// constant, is  c r - P  with r = sum w g^2 and, for s = c s0,  P = 2 / s0 sum w x g. r is one number for all rows. P is a sum of two
// numbers per lane, because the rows of a book are made of few different halves: at most 81 of three levels, 64 of eight. Where the parity
// is wrong, P is less by the least product of all elements, the minimum of two numbers, which therefore joins the halves.
//
// All this in fixed point and negative, with the rank of the entry below the value: then a scale costs one addition and one maximum per
// entry, and the maximum keeps the rank. Errors are told apart down to 2^-18 of the largest possible r.

#if defined(QUERN_QUANTIZE_LATTICE_PARITY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LATTICE_PARITY_INL_H_
#undef QUERN_QUANTIZE_LATTICE_PARITY_INL_H_
#else
#define QUERN_QUANTIZE_LATTICE_PARITY_INL_H_
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <limits>

#include "quantize/plain/encoders.h"
#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/lattice_types-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// The rows of a code book, sorted and split into halves. Rank: place of a row in this order.
template <typename Spec>
struct SplitBook {
  static constexpr size_t kLevels = std::size(Spec::kLevels);
  static constexpr size_t kHalf = Spec::kDim / 2;
  static constexpr size_t kPairs = kHalf / 2;
  static constexpr size_t kMostHalves = 81;
  using Half = std::array<uint8_t, kPairs>;  // pairs of values, each as (number of level) * kLevels + number of level

  size_t n_halves[2] = {};
  Half half[2][kMostHalves] = {};
  uint16_t place[2][Spec::kEntries];  // number of the half, times 16
  uint16_t index[Spec::kEntries];     // of the row in the type's own order
  alignas(64) float square[Spec::kEntries / kLanes][Spec::kDim][kLanes];

  SplitBook() {
    std::array<size_t, Spec::kDim> rows[Spec::kEntries];
    for (size_t e = 0; e < Spec::kEntries; ++e) {
      index[e] = static_cast<uint16_t>(e);
      for (size_t j = 0; j < Spec::kDim; ++j) rows[e][j] = number_of_level<Spec>(static_cast<float>(Spec::rows()[e][j]));
    }
    std::sort(index, index + Spec::kEntries, [&](uint16_t a, uint16_t b) { return rows[a] < rows[b]; });
    for (size_t rank = 0; rank < Spec::kEntries; ++rank) {
      const auto& row = rows[index[rank]];
      for (size_t side = 0; side < 2; ++side)
        place[side][rank] = static_cast<uint16_t>(kLanes * number_of_half(side, row.data() + side * kHalf));
      for (size_t j = 0; j < Spec::kDim; ++j) {
        const float value = Spec::kLevels[row[j]];
        square[rank / kLanes][j][rank % kLanes] = value * value;
      }
    }
  }

 private:
  size_t number_of_half(size_t side, const size_t* levels) {
    Half sought;
    for (size_t p = 0; p < kPairs; ++p) sought[p] = static_cast<uint8_t>(levels[2 * p] * kLevels + levels[2 * p + 1]);
    const auto number = static_cast<size_t>(std::find(half[side], half[side] + n_halves[side], sought) - half[side]);
    if (number == n_halves[side]) half[side][n_halves[side]++] = sought;
    return number;
  }
};

// What the importance of a unit makes of a book, the same for all rows.
template <typename Spec>
class LatticeTerms {
 public:
  static constexpr int kRankBits = std::countr_zero(static_cast<unsigned>(Spec::kEntries));
  // x / s0 counts as at most this many times the largest level. Levels are told apart no less for that, and nothing overflows: the part
  // of an error that depends on x is at most twice that many times the largest r, c r at most twice r, and 0.8 kUnit stands for the
  // largest r: together less than 2^31 with a rank below, 2^22 without.
  static constexpr float kMostLevels = 8.0f;
  static constexpr float kUnit = 0x1p18f;
  static_assert(kRankBits <= 9);

  // w: kDim importances. c: n scales as multiples of s0, all below 2.
  void set(const float* w, const float* c, int n) {
    const SplitBook<Spec>& book = the_book<SplitBook<Spec>>();
    float largest = 0.0f;
    for (int j = 0; j < Spec::kDim; ++j) largest += w[j] * (Spec::kTop * Spec::kTop);
    to_fixed = 0.8f * kUnit / largest;
    for (int block = 0; block < Spec::kEntries / kLanes; ++block) {
      Lanes sum = splat(0.0f);
      for (int j = 0; j < Spec::kDim; ++j) sum += splat(w[j]) * load(book.square[block][j]);
      store(sum, r + block * kLanes);
      for (int k = 0; k < n; ++k) store_ranked(sum * splat(c[k]), block, less_r[k]);
    }
  }

  float to_fixed;  // r to fixed point, without rank
  alignas(64) float r[Spec::kEntries];
  alignas(64) int32_t less_r[kMostBookScales][Spec::kEntries];  // -c r above the rank

 private:
  void store_ranked(const Lanes& value, int block, int32_t* to) const {
    for (int part = 0; part < kParts; ++part) {
      const int first = block * kLanes + part * kPartLanes;
      const IntPart fixed = hn::ShiftLeft<kRankBits>(to_int(hn::Mul(value.part[part], hn::Set(PartTag(), -to_fixed))));
      hn::Store(hn::Or(fixed, hn::Iota(IntPartTag(), first)), IntPartTag(), to + first);
    }
  }
};

// A unit of 16 rows, ready for passes over the book.
template <typename Spec>
class LatticeUnit {
 public:
  // With the sign flipped where it must be, or without and with.
  static constexpr int kSets = kSearches<Spec>;

  // x, w: of the kDim weights. inverse: 1 / s0. twice_odd: per lane 2 where the parity of signs is wrong, else 0; for types with even
  // units.
  LatticeUnit(const LatticeTerms<Spec>& terms, const float (*x)[kLanes], const float* w, const Lanes& inverse, const Lanes& twice_odd)
      : terms_(terms) {
    const SplitBook<Spec>& book = the_book<SplitBook<Spec>>();
    constexpr size_t n_levels = SplitBook<Spec>::kLevels;
    constexpr size_t kHalf = SplitBook<Spec>::kHalf;
    constexpr size_t kPairs = SplitBook<Spec>::kPairs;
    const Lanes factor = (inverse + inverse) * splat(terms.to_fixed);
    const Lanes penalty = kSets == 2 ? splat(2.0f) : twice_odd;
    for (size_t side = 0; side < 2; ++side) {
      alignas(64) int32_t products[kHalf][n_levels][kLanes];
      alignas(64) int32_t penalties[kHalf][n_levels][kLanes];
      for (size_t j = 0; j < kHalf; ++j) {
        const size_t at = side * kHalf + j;
        const float limit = w[at] * (2.0f * LatticeTerms<Spec>::kMostLevels * Spec::kTop) * terms.to_fixed;
        const Lanes wx = min(splat(w[at]) * abs(load(x[at])) * factor, splat(limit));
        for (size_t v = 0; v < n_levels; ++v) {
          const Lanes product = wx * splat(Spec::kLevels[v]);
          store_fixed(product, products[j][v]);
          store_fixed(product * penalty, penalties[j][v]);
        }
      }
      const auto of = [](const int32_t* value, int at) { return hn::Load(IntPartTag(), value + at); };
      alignas(64) int32_t sums[kPairs][n_levels * n_levels][kLanes];
      alignas(64) int32_t flips[kPairs][n_levels * n_levels][kLanes];
      for (size_t pair = 0; pair < kPairs; ++pair) {
        const size_t j = 2 * pair;
        for (size_t v = 0; v < n_levels * n_levels; ++v) {
          const size_t even = v / n_levels;
          const size_t odd = v % n_levels;
          for (int at = 0; at < kLanes; at += kPartLanes) {
            hn::Store(hn::Add(of(products[j][even], at), of(products[j + 1][odd], at)), IntPartTag(), sums[pair][v] + at);
            hn::Store(hn::Min(of(penalties[j][even], at), of(penalties[j + 1][odd], at)), IntPartTag(), flips[pair][v] + at);
          }
        }
      }
      for (size_t h = 0; h < book.n_halves[side]; ++h) {
        const size_t first = book.half[side][h][0];
        const size_t second = book.half[side][h][kPairs - 1];
        for (int at = 0; at < kLanes; at += kPartLanes) {
          const IntPart sum = of(sums[0][first], at);
          hn::Store(kPairs == 1 ? sum : hn::Add(sum, of(sums[kPairs - 1][second], at)), IntPartTag(), sums_[side] + h * kLanes + at);
          hn::Store(hn::Min(of(flips[0][first], at), of(flips[kPairs - 1][second], at)), IntPartTag(), flips_[side] + h * kLanes + at);
        }
      }
    }
  }

  // One pass over the book: found[set * kCount + k] gets the best entry of each lane at the scale c[k] s0, c being those of the terms.
  template <int kCount>
  void find(const float* c, FoundRow* found) const {
    const SplitBook<Spec>& book = the_book<SplitBook<Spec>>();
    const IntPartTag tag;
    for (int part = 0; part < kParts; ++part) {
      const int at = part * kPartLanes;
      IntPart most[kSets][kCount];  // of  P - c r
      for (auto& set : most) {
        for (IntPart& value : set) value = hn::Set(tag, std::numeric_limits<int32_t>::min());
      }
      for (size_t e = 0; e < Spec::kEntries; ++e) {
        const int32_t first = book.place[0][e] + at;
        const int32_t second = book.place[1][e] + at;
        IntPart p[kSets];
        p[0] = hn::Add(hn::Load(tag, sums_[0] + first), hn::Load(tag, sums_[1] + second));
        p[kSets - 1] = hn::Sub(p[0], hn::Min(hn::Load(tag, flips_[0] + first), hn::Load(tag, flips_[1] + second)));
        for (int set = 0; set < kSets; ++set) {
          for (int k = 0; k < kCount; ++k) most[set][k] = hn::Max(most[set][k], hn::Add(p[set], hn::Set(tag, terms_.less_r[k][e])));
        }
      }
      for (int set = 0; set < kSets; ++set) {
        for (int k = 0; k < kCount; ++k) read(most[set][k], c[k], part, found[set * kCount + k]);
      }
    }
  }

 private:
  static constexpr int kRankBits = LatticeTerms<Spec>::kRankBits;

  static void store_fixed(const Lanes& value, int32_t* to) {
    for (int part = 0; part < kParts; ++part) {
      hn::Store(hn::ShiftLeft<kRankBits>(to_int(value.part[part])), IntPartTag(), to + part * kPartLanes);
    }
  }

  void read(IntPart best, float c, int part, FoundRow& found) const {
    const PartTag tag;
    const IntPart rank = hn::And(best, hn::Set(IntPartTag(), Spec::kEntries - 1));
    const Part fixed = hn::ConvertTo(tag, hn::ShiftRight<kRankBits>(best));
    const Part r = hn::GatherIndex(tag, terms_.r, rank);
    found.p.part[part] = hn::Add(hn::Mul(hn::Set(tag, c), r), hn::Mul(fixed, hn::Set(tag, 1.0f / terms_.to_fixed)));
    found.r.part[part] = r;
    found.row.part[part] = hn::ConvertTo(tag, rank);
  }

  const LatticeTerms<Spec>& terms_;
  alignas(64) int32_t sums_[2][SplitBook<Spec>::kMostHalves * kLanes];
  alignas(64) int32_t flips_[2][SplitBook<Spec>::kMostHalves * kLanes];
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LATTICE_PARITY_INL_H_
