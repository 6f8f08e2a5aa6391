// Code books whose rows obey no parity rule, as the search over rows reads them. Compiled once per CPU target.
//
// At one scale the weighted error of a row of the book is that of its first half plus that of its second half, and there are at most 81
// different halves on either side. So the errors of halves are tabulated, and a row costs one minimum: over the second halves that the
// book joins to a first half. Then the error of the first half is added. Second halves that two first halves share are gone through once.
//
// Errors have 16 bits, for two units of 16 rows in one vector, in units that fit the row and the unit: twice a bound of the least error is
// almost 2^16, larger ones count as the largest. Below the error of a second half is its code, so that minima keep it. Rows of the book
// are told apart down to 2^-10 (IQ3) or 2^-8 of that range, one or two percent of the usual least error; as only rows that nearly tie are
// mistaken for each other, that costs a few 10^-4 of it. The sums p and r of the row found are made from its levels, in full precision.
//
// The bound: let e be the error of the nearest levels g. How far the row of the book nearest to g is from it was tried for all g with 200
// importances of any spread: always less than the sum of  v (0.12 g^2 + a step^2)  with a from 0.09 (IQ3_S) to 0.2 (IQ1), v being the
// importances made more even (heavy weights keep their levels, light ones give way). By the triangle inequality the least error is at most
// twice the sum of e and that.

#if defined(QUERN_QUANTIZE_LATTICE_HALVES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LATTICE_HALVES_INL_H_
#undef QUERN_QUANTIZE_LATTICE_HALVES_INL_H_
#else
#define QUERN_QUANTIZE_LATTICE_HALVES_INL_H_
#endif

#include <algorithm>
#include <bitset>
#include <cmath>
#include <cstddef>
#include <iterator>

#include "quantize/plain/encoders.h"
#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/lattice_types-inl.h"
#include "quantize/plain/shorts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// The rows of a code book by their halves. A half is numbered by its quarters, a quarter by its levels, the first counting most, whether
// the book has it or not. The code of a half: the number of the level of element j in bits j kLevelBits upwards; that of a row: of its
// first half above that of its second half.
template <typename Spec>
struct HalvedBook {
  static constexpr int kLevels = static_cast<int>(std::size(Spec::kLevels));
  static constexpr int kHalf = Spec::kDim / 2;  // elements
  static constexpr int kQuarter = kHalf / 2;
  static constexpr int kQuarters = kQuarter == 1 ? kLevels : kLevels * kLevels;
  static constexpr int kHalves = kQuarters * kQuarters;
  static constexpr int kLevelBits = kLevels > 4 ? 3 : 2;
  static constexpr int kHalfBits = kHalf * kLevelBits;

  // Two first halves that share many second halves: lists of these, one after the other, each of even length and perhaps empty.
  struct Couple {
    struct First {
      uint8_t quarter;  // the second one
      uint8_t code;
      const uint16_t* end;  // of what it has alone
    };

    const uint16_t* end_of_shared;
    First first[2];  // the same twice where one is left over
  };

  int n_couples[kQuarters] = {};  // by first quarter
  Couple couples[kQuarters][kQuarters];
  uint16_t seconds[Spec::kEntries + 3 * kHalves];  // all lists, in the order of the couples: where numbers are in an array of ShortPart
  uint8_t code_of[kHalves];

  HalvedBook() {
    for (int h = 0; h < kHalves; ++h) {
      code_of[h] = 0;
      for (int j = kHalf - 1, rest = h; j >= 0; --j, rest /= kLevels) {
        const int number = rest % kLevels;
        code_of[h] = static_cast<uint8_t>(code_of[h] | number << (kLevelBits * j));
      }
      half_of_[code_of[h]] = static_cast<uint8_t>(h);
    }
    std::bitset<kHalves> joined[kHalves];
    for (size_t e = 0; e < Spec::kEntries; ++e) {
      const size_t first = half_of_row(e, 0);
      const size_t second = half_of_row(e, kHalf);
      joined[first].set(second);
      index_[first][second] = static_cast<uint16_t>(e);
    }
    uint16_t* end = seconds;
    for (size_t quarter = 0; quarter < kQuarters; ++quarter) end = pair_up_halves(joined, quarter, end);
  }

  // Of the row with this code, in the type's own order.
  uint16_t index_of(int code) const { return index_[half_of_[code >> kHalfBits]][half_of_[code & ((1 << kHalfBits) - 1)]]; }

 private:
  static size_t half_of_row(size_t entry, size_t from) {
    size_t number = 0;
    for (size_t j = from; j < from + kHalf; ++j) {
      number = number * kLevels + number_of_level<Spec>(static_cast<float>(Spec::rows()[entry][j]));
    }
    return number;
  }

  // First halves with this first quarter, greedily: those that share most first.
  uint16_t* pair_up_halves(const std::bitset<kHalves>* joined, size_t quarter, uint16_t* end) {
    const auto list = [&](const std::bitset<kHalves>& halves) {
      uint16_t* const begin = end;
      for (size_t h = 0; h < kHalves; ++h) {
        if (halves[h]) *end++ = static_cast<uint16_t>(h * sizeof(ShortPart));
      }
      if ((end - begin) % 2 != 0) *end++ = *begin;
      return end;
    };
    std::bitset<kHalves> left;
    for (size_t h = quarter * kQuarters; h < (quarter + 1) * kQuarters; ++h) left[h] = joined[h].any();
    while (left.any()) {
      size_t a = 0;
      size_t b = 0;
      size_t most = 0;
      for (size_t i = 0; i < kHalves; ++i) {
        for (size_t j = i; left[i] && j < kHalves; ++j) {
          const size_t shared = i == j ? 1 : (joined[i] & joined[j]).count();
          if (left[j] && shared > most) a = i, b = j, most = shared;
        }
      }
      left.reset(a).reset(b);
      const std::bitset<kHalves> shared = joined[a] & joined[b];
      Couple& couple = couples[quarter][n_couples[quarter]++];
      couple.end_of_shared = list(shared);
      const auto alone = [&](size_t h) -> typename Couple::First {
        return {static_cast<uint8_t>(h % kQuarters), code_of[h], list(joined[h] & ~shared)};
      };
      couple.first[0] = alone(a);
      couple.first[1] = alone(b);
    }
    return end;
  }

  uint8_t half_of_[1 << kHalfBits] = {};  // by code
  uint16_t index_[kHalves][kHalves] = {};
};

// The levels at the scales of a pass, in fixed point, the same for all units.
template <typename Spec>
struct HalvedLevels {
  float largest;  // what 2^15 stands for
  int16_t fixed[Spec::kBooks][kMostBookScales][HalvedBook<Spec>::kLevels];

  // c: n scales as multiples of s0.
  HalvedLevels(const float* c, int n) : largest(Spec::kTop * *std::max_element(c, c + n)) {
    for (int book = 0; book < Spec::kBooks; ++book) {
      for (int k = 0; k < n; ++k) {
        for (int v = 0; v < HalvedBook<Spec>::kLevels; ++v) {
          const float level = c[k] * (Spec::kLevels[v] + Spec::offset(book)) / largest;
          fixed[book][k][v] = static_cast<int16_t>(std::clamp(std::nearbyint(level * 0x1p15f), -kMostShort, kMostShort));
        }
      }
    }
  }
};

// Two units of 16 rows with one first guess of their scales, ready for passes over the book.
template <typename Spec>
class HalvedUnits {
 public:
  static constexpr int kDim = Spec::kDim;

  // x, w: of both units. inverse: 1 / s0.
  HalvedUnits(const HalvedLevels<Spec>& levels, const float (*x)[kLanes], const float* w, const Lanes& inverse)
      : levels_(levels), x_(x), w_(w), twice_inverse_(inverse + inverse) {
    constexpr float kMost = 8.0f * Spec::kTop;  // more than that is as good
    Lanes y[2 * kDim];
    Lanes factor[2 * kDim];
    for (int first = 0; first < 2 * kDim; first += kDim) {
      float even[kDim];
      even_out(w + first, even);
      Lanes bound = splat(1e-30f);
      for (int j = first; j < first + kDim; ++j) {
        y[j] = clamp(own_sign(load(x[j])) * inverse, -kMost, kMost);
        const Lanes magnitude = abs(y[j]);
        const Lanes rest = magnitude - Spec::nearest(magnitude);
        bound += splat(w[j]) * rest * rest + splat(even[j - first]) * (splat(kOfSquares) * magnitude * magnitude + splat(kOfSteps));
      }
      const Lanes unit = splat(kRange) / square_root(bound);
      for (int j = first; j < first + kDim; ++j) {
        factor[j] = min(unit * splat(std::sqrt(w[j])), splat(kMostShort / levels.largest));
        y[j] = clamp(y[j] * factor[j], -kMostShort, kMostShort);
        factor[j] = factor[j] * splat(levels.largest);
      }
    }
    for (int part = 0; part < kParts; ++part) {
      for (int j = 0; j < kDim; ++j) {
        y_[part][j] = pair_up(to_int(y[j].part[part]), to_int(y[kDim + j].part[part]));
        factor_[part][j] = pair_up(to_int(factor[j].part[part]), to_int(factor[kDim + j].part[part]));
      }
    }
  }

  // One pass: found[unit][k] gets the best row of each lane at scale number first_scale + k of the levels.
  template <int kCount>
  HWY_INLINE void find(int book, int first_scale, FoundRow (*found)[kCount]) const {
    for (int part = 0; part < kParts; ++part) {
      Errors<kCount> errors;
      for (int k = 0; k < kCount; ++k) {
        const int16_t* const levels = levels_.fixed[book][first_scale + k];
        ShortPart quarters[2][kQuarters];
        tabulate(part, 1, levels, quarters);
        for (int m = 0; m < kQuarters; ++m) {
          for (int n = 0; n < kQuarters; ++n) errors.second[k][m * kQuarters + n] = saturated_unsigned_sum(quarters[0][m], quarters[1][n]);
        }
        tabulate(part, 0, levels, errors.quarters_of_first[k]);
      }
      const Best<kCount> best = search<kCount>(errors);
      for (int k = 0; k < kCount; ++k) {
        read(0, book, part, code_of(lower_halves(best.first[k]), lower_halves(best.error[k])), found[0][k]);
        read(1, book, part, code_of(upper_halves(best.first[k]), upper_halves(best.error[k])), found[1][k]);
      }
    }
  }

 private:
  using Book = HalvedBook<Spec>;
  static constexpr int kHalf = Book::kHalf;
  static constexpr int kQuarters = Book::kQuarters;
  static constexpr int kLevels = Book::kLevels;
  static constexpr int kLevelBits = Book::kLevelBits;
  static constexpr int kCodeMask = (1 << Book::kHalfBits) - 1;
  static constexpr float kStep = Spec::kLevels[1] - Spec::kLevels[0];
  // What the bound adds to e, steps being those of the largest scale.
  static constexpr float kOfSquares = 0.12f;
  static constexpr float kOfSteps = 0.05f * Spec::kSpread * Spec::kSpread * kStep * kStep;
  static constexpr float kRange = 176.78f;  // the root of the bound in 16 bits: twice its square is 62500

  template <int kCount>
  struct Errors {
    ShortPart quarters_of_first[kCount][2][kQuarters];
    ShortPart second[kCount][Book::kHalves];
  };

  // Fourth roots of kDim importances, times the cube of their mean.
  static void even_out(const float* w, float* even) {
    float mean = 0.0f;
    for (int j = 0; j < kDim; ++j) {
      even[j] = std::sqrt(std::sqrt(w[j]));
      mean += even[j] / kDim;
    }
    for (int j = 0; j < kDim; ++j) even[j] *= mean * mean * mean;
  }

  static Lanes own_sign(const Lanes& x) { return Spec::kSigns == SignRule::kInBook ? x : abs(x); }

  static IntPart code_of(IntPart first, IntPart error) {
    return hn::Or(hn::ShiftLeft<Book::kHalfBits>(first), hn::And(error, hn::Set(IntPartTag(), kCodeMask)));
  }

  // Errors of the two quarters of a half (0, 1), above the code for second halves.
  HWY_INLINE void tabulate(int part, int half, const int16_t* levels, ShortPart (*quarters)[kQuarters]) const {
    ShortPart errors[kHalf][kLevels];
    for (int j = 0; j < kHalf; ++j) {
      for (int v = 0; v < kLevels; ++v) {
        const ShortPart level = multiply_fixed(factor_[part][half * kHalf + j], every_short(levels[v]));
        const ShortPart rest = unsigned_min(magnitude(y_[part][half * kHalf + j] - level), every_short(255));
        errors[j][v] = rest * rest;
      }
    }
    const auto marked = [half](ShortPart error, int code) { return (error & every_short(~kCodeMask)) | every_short(half == 1 ? code : 0); };
    for (int q = 0; q < 2; ++q) {
      const int shift = q * Book::kHalfBits / 2;
      for (int v = 0; v < kLevels; ++v) {
        if constexpr (Book::kQuarter == 1) {
          quarters[q][v] = marked(errors[q][v], v << shift);
        } else {
          for (int u = 0; u < kLevels; ++u) {
            quarters[q][v * kLevels + u] =
                marked(saturated_unsigned_sum(errors[2 * q][v], errors[2 * q + 1][u]), (v | u << kLevelBits) << shift);
          }
        }
      }
    }
  }

  // The least errors of second halves in a list, and of those before.
  template <int kCount>
  static HWY_INLINE void go_through(const Errors<kCount>& errors, const uint16_t* begin, const uint16_t* end, ShortPart (&least)[kCount]) {
    const auto at = [&](int k, uint16_t place) {
      return *reinterpret_cast<const ShortPart*>(reinterpret_cast<const std::byte*>(errors.second[k]) + place);
    };
    for (; begin != end; begin += 2) {
      for (int k = 0; k < kCount; ++k) least[k] = unsigned_min(least[k], at(k, begin[0]));
      for (int k = 0; k < kCount; ++k) least[k] = unsigned_min(least[k], at(k, begin[1]));
    }
  }

  // What was found so far at each scale.
  template <int kCount>
  struct Best {
    ShortPart error[kCount];  // with the code of the second half
    ShortPart first[kCount];  // the code of the first half
  };

  // A first half with the second halves in a list and those before.
  template <int kCount>
  static HWY_INLINE void join(const Errors<kCount>& errors, int quarter, const typename Book::Couple::First& half, const uint16_t* begin,
                              const ShortPart (&shared)[kCount], ShortPart (&error)[kCount], ShortPart (&first)[kCount]) {
    ShortPart second[kCount];
    for (int k = 0; k < kCount; ++k) second[k] = shared[k];
    go_through<kCount>(errors, begin, half.end, second);
    for (int k = 0; k < kCount; ++k) {
      const auto& quarters = errors.quarters_of_first[k];
      const ShortPart of_first = saturated_unsigned_sum(quarters[0][quarter], quarters[1][half.quarter]);
      const ShortPart better = unsigned_min(error[k], saturated_unsigned_sum(of_first, second[k]));
      first[k] = select_equal(better, error[k], first[k], every_short(half.code));
      error[k] = better;
    }
  }

  template <int kCount>
  static HWY_INLINE Best<kCount> search(const Errors<kCount>& errors) {
    const Book& book = the_book<Book>();
    ShortPart error[kCount];
    ShortPart first[kCount];
    for (int k = 0; k < kCount; ++k) {  // some row of the book, at the end of the range
      error[k] = every_short(~kCodeMask | book.code_of[book.seconds[0] / sizeof(ShortPart)]);
      first[k] = every_short(book.couples[0][0].first[0].code);
    }
    const uint16_t* at = book.seconds;
    for (int quarter = 0; quarter < kQuarters; ++quarter) {
      for (int c = 0; c < book.n_couples[quarter]; ++c) {
        const typename Book::Couple& couple = book.couples[quarter][c];
        ShortPart shared[kCount];
        for (int k = 0; k < kCount; ++k) shared[k] = every_short(-1);
        go_through<kCount>(errors, at, couple.end_of_shared, shared);
        join<kCount>(errors, quarter, couple.first[0], couple.end_of_shared, shared, error, first);
        join<kCount>(errors, quarter, couple.first[1], couple.first[0].end, shared, error, first);
        at = couple.first[1].end;
      }
    }
    Best<kCount> best;
    for (int k = 0; k < kCount; ++k) {
      best.error[k] = error[k];
      best.first[k] = first[k];
    }
    return best;
  }

  void read(int unit, int book, int part, IntPart code, FoundRow& found) const {
    const PartTag tag;
    Part p = hn::Zero(tag);
    Part r = hn::Zero(tag);
    for (int j = 0; j < kDim; ++j) {
      const int shift = kLevelBits * (j % kHalf) + (j < kHalf ? Book::kHalfBits : 0);
      const IntPart number = hn::And(hn::ShiftRightSame(code, shift), hn::Set(IntPartTag(), (1 << kLevelBits) - 1));
      const Part level = hn::Add(Spec::level(hn::ConvertTo(tag, number)), hn::Set(tag, Spec::offset(book)));
      const Part weighted = hn::Mul(hn::Set(tag, w_[unit * kDim + j]), level);
      p = hn::Add(p, hn::Mul(weighted, own_sign(load(x_[unit * kDim + j])).part[part]));
      r = hn::Add(r, hn::Mul(weighted, level));
    }
    found.p.part[part] = hn::Mul(p, twice_inverse_.part[part]);
    found.r.part[part] = r;
    found.row.part[part] = hn::ConvertTo(tag, code);
  }

  const HalvedLevels<Spec>& levels_;
  const float (*x_)[kLanes];
  const float* w_;
  Lanes twice_inverse_;
  // In the lower halves of lanes the first unit, in the upper ones the second. x / s0 times the root of the importance, in units whose
  // square is a unit of errors; and what levels are multiplied with to be the same.
  ShortPart y_[kParts][kDim];
  ShortPart factor_[kParts][kDim];
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LATTICE_HALVES_INL_H_
