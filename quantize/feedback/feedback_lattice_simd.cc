// Error feedback for the types with code books. Units of 4 or 8 weights take a row of the book at once; inside a unit the cost of a row
// includes what its first errors do to the later weights of the unit, so the whole book is ranked by the plain weighted error first
// (lanes are rows) and the best two of every lane, 32 rows, are then judged exactly. d and the integers l are found as for the K-quants.

#include "formats/types/blocks.h"
#include "quantize/feedback/feedback_tile.h"
#include "quantize/plain/encoders.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/feedback/feedback_lattice_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/feedback/feedback_search-inl.h"
#include "quantize/plain/lattice_types-inl.h"

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

// What a unit asks of a book: all elements with their own sign, or one flipped.
enum class Signs : uint8_t { kOwn, kOneFlipped };

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

template <typename Spec>
const LatticeBook<Spec::kDim, Spec::kEntries>& book_of() {
  static const LatticeBook<Spec::kDim, Spec::kEntries> book(Spec::rows(), 0.0f);
  return book;
}

using Iq1Book = LatticeBook<8, 2048>;

// Book 0 adds 1/8 to every value, book 1 subtracts it.
inline const Iq1Book& iq1_book(int which) {
  static const Iq1Book books[2] = {Iq1Book(kIq1Grid, 0.125f), Iq1Book(kIq1Grid, -0.125f)};
  return books[which];
}

// Which numbers of minus signs a unit may have.
enum class Parity : uint8_t { kFree, kEven, kOdd };

// A unit of kDim weights as it is settled.
template <int kDim>
struct UnitFit {
  float cost = HUGE_VALF;
  int index = 0;
  float level[kDim];  // signed values of the book
  bool odd = false;
};

// The 16 rows that a lane has best, or second best, by the plain error.
struct Shortlist {
  Lanes cost[2];
  Lanes block[2];

  Shortlist() {
    for (int rank = 0; rank < 2; ++rank) {
      cost[rank] = splat(HUGE_VALF);
      block[rank] = splat(0.0f);
    }
  }

  void offer(const Lanes& offered, float number) {
    const Lanes which = splat(number);
    const Lanes loser_cost = max(cost[0], offered);
    const Lanes loser_block = select_less(offered, cost[0], block[0], which);
    block[0] = select_less(offered, cost[0], which, block[0]);
    cost[0] = min(cost[0], offered);
    block[1] = select_less(loser_cost, cost[1], loser_block, block[1]);
    cost[1] = min(cost[1], loser_cost);
  }
};

// One unit at `first` with the aims it has now, at scale s.
template <int kDim, int kEntries>
class UnitSearch {
 public:
  using Book = LatticeBook<kDim, kEntries>;
  using Fit = UnitFit<kDim>;

  // aim: of the unit's weights. Books with signs of their own hold magnitudes.
  UnitSearch(const Book& book, const Normalised& in, const float* aim, int first, float s, bool has_signs)
      : book_(book), in_(in), aim_(aim), first_(first), s_(s), has_signs_(has_signs) {}

  Fit find(Parity parity) const {
    const Shortlist list = shortlist(parity);
    Fit best;
    for (const Lanes& blocks : list.block) judge(blocks, parity, best);
    return best;
  }

 private:
  Shortlist shortlist(Parity parity) const {
    alignas(64) float wx[kDim];
    int n_negative = 0;
    for (int j = 0; j < kDim; ++j) {
      const float x = aim_[j];
      if (x < 0.0f) ++n_negative;
      wx[j] = in_.w[first_ + j] * (has_signs_ ? std::fabs(x) : x);
    }
    const bool wrong = parity != Parity::kFree && (n_negative % 2 != 0) != (parity == Parity::kOdd);
    const Signs signs = wrong ? Signs::kOneFlipped : Signs::kOwn;
    const Lanes s = splat(s_);
    Shortlist list;
    for (int block = 0; block < kEntries / kLanes; ++block) {
      const LineTerms terms = line_terms(book_, block, wx, in_.w + first_, signs);
      list.offer(s * terms.r - (terms.p + terms.p), static_cast<float>(block));
    }
    return list;
  }

  // The rows of these blocks, one per lane, by exact cost.
  void judge(const Lanes& blocks, Parity parity, Fit& best) const {
    alignas(64) float numbers[kLanes];
    store(blocks, numbers);
    alignas(64) float rows[kDim][kLanes];
    for (int c = 0; c < kLanes; ++c) {
      const auto block = static_cast<size_t>(numbers[c]);
      for (int j = 0; j < kDim; ++j) rows[j][c] = book_.value[block][j][c];
    }
    Lanes levels[kDim];
    for (int j = 0; j < kDim; ++j) levels[j] = load(rows[j]);
    Lanes signs[kDim];
    for (Lanes& sign : signs) sign = splat(1.0f);
    Lanes cost = splat(0.0f);
    Lanes product = splat(1.0f);  // of all signs
    if (!has_signs_) {
      cost = walk<false>(levels, signs);
    } else {
      Lanes flip_cost = splat(HUGE_VALF);
      Lanes flip = splat(0.0f);
      cost = walk<true>(levels, signs, &flip_cost, &flip);
      for (const Lanes& sign : signs) product = map([](Part a, Part b) { return hn::Mul(a, b); }, product, sign);
      if (parity != Parity::kFree) {
        const Lanes wanted = splat(parity == Parity::kOdd ? -1.0f : 1.0f);
        const Lanes wrong = product * wanted;  // -1 where one sign must change
        for (int j = 0; j < kDim; ++j) {
          const Lanes apart = abs(flip - splat(static_cast<float>(j)));
          const Lanes turned = select_less(wrong, splat(0.0f), splat(0.0f) - signs[j], signs[j]);
          signs[j] = select_less(apart, splat(0.5f), turned, signs[j]);
        }
        product = wanted;
        cost = walk<false>(levels, signs);
      }
    }
    const BestLane found = minimum(cost);
    if (!(found.value < best.cost)) return;
    best.cost = found.value;
    best.index = static_cast<int>(numbers[found.lane]) * kLanes + found.lane;
    best.odd = lane(product, found.lane) < 0.0f;
    for (int j = 0; j < kDim; ++j) best.level[j] = lane(levels[j], found.lane) * lane(signs[j], found.lane);
  }

  // Exact cost of rows with these signs; with kChoose the signs become those of the aims, and the element whose wrong sign would cost
  // least is noted.
  template <bool kChoose>
  Lanes walk(const Lanes* levels, Lanes* signs, Lanes* flip_cost = nullptr, Lanes* flip = nullptr) const {
    Lanes aim[kDim];
    for (int j = 0; j < kDim; ++j) aim[j] = splat(aim_[j]);
    const Lanes s = splat(s_);
    Lanes cost = splat(0.0f);
    for (int j = 0; j < kDim; ++j) {
      const Lanes w = splat(in_.w[first_ + j]);
      if (kChoose) {
        signs[j] = copy_sign(splat(1.0f), aim[j]);
        const Lanes turning = w * abs(aim[j]) * levels[j];
        *flip = select_less(turning, *flip_cost, splat(static_cast<float>(j)), *flip);
        *flip_cost = min(*flip_cost, turning);
      }
      const Lanes y = s * levels[j] * signs[j];
      const Lanes e = aim[j] - y;
      cost += w * e * e;
      const Lanes error = splat(in_.x[first_ + j]) - y;
      const float* row = in_.row(first_ + j) + first_;
      for (int k = j + 1; k < kDim; ++k) aim[k] += splat(row[k]) * error;
    }
    return cost;
  }

  const Book& book_;
  const Normalised& in_;
  const float* aim_;
  int first_;
  float s_;
  bool has_signs_;
};

// What a sub-block would become at some scale.
struct SubBlockFit {
  double cost = 0.0;
  float level[32];
  int index[8];
  int book[8] = {};
};

// Puts unit u into the fit and hands its errors to the rest of the sub-block.
template <int kDim>
void take_unit(const Normalised& in, int first, int n, float s, int u, const UnitFit<kDim>& unit, float* aim, SubBlockFit& fit) {
  fit.cost += static_cast<double>(unit.cost);
  fit.index[u] = unit.index;
  const int rest = (u + 1) * kDim;
  for (int j = u * kDim; j < rest; ++j) {
    fit.level[j] = unit.level[j - u * kDim];
    add_scaled(in.x[first + j] - s * fit.level[j], in.row(first + j) + first + rest, n - rest, aim + rest);
  }
}

// The types add try_scale to their book: the sub-block at `first` at scale s.

template <typename Spec>
struct SignedLattice : Spec {
  static constexpr bool kPaired = Spec::kSigns == SignRule::kEvenPairs;
  static constexpr Parity kParity = Spec::kSigns == SignRule::kEvenUnits ? Parity::kEven : Parity::kFree;
  using Unit = UnitSearch<Spec::kDim, Spec::kEntries>;

  static SubBlockFit try_scale(const Normalised& in, const Settled& at, int first, float s) {
    alignas(64) float aim[32];
    std::copy_n(at.aim + first, Spec::kSubSize, aim);
    SubBlockFit fit;
    for (int u = 0; u < Spec::kSubSize / Spec::kDim; ++u) {
      if constexpr (kPaired) {
        choose_pair(in, first, s, u++, aim, fit);
      } else {
        take_unit(in, first, Spec::kSubSize, s, u, find(in, aim, first, u, s, kParity), aim, fit);
      }
    }
    return fit;
  }

 private:
  static UnitFit<Spec::kDim> find(const Normalised& in, const float* aim, int first, int u, float s, Parity parity) {
    return Unit(book_of<Spec>(), in, aim + u * Spec::kDim, first + u * Spec::kDim, s, true).find(parity);
  }

  // Both parities of the first unit, each with the second unit that goes with it.
  static void choose_pair(const Normalised& in, int first, float s, int u, float* aim, SubBlockFit& fit) {
    alignas(64) float aims[2][32];
    SubBlockFit fits[2] = {fit, fit};
    for (const int odd : {0, 1}) {
      const Parity parity = odd != 0 ? Parity::kOdd : Parity::kEven;
      std::copy_n(aim, Spec::kSubSize, aims[odd]);
      for (const int unit : {u, u + 1}) {
        take_unit(in, first, Spec::kSubSize, s, unit, find(in, aims[odd], first, unit, s, parity), aims[odd], fits[odd]);
      }
    }
    const int better = fits[1].cost < fits[0].cost ? 1 : 0;
    fit = fits[better];
    std::copy_n(aims[better], Spec::kSubSize, aim);
  }
};

template <typename Spec>
struct TernaryLattice : Spec {
  static constexpr bool kShared = Spec::kSharedBook;
  static constexpr int kSubSize = Spec::kSubSize;
  using Unit = UnitSearch<8, 2048>;

  static SubBlockFit try_scale(const Normalised& in, const Settled& at, int first, float s) {
    SubBlockFit best;
    best.cost = HUGE_VAL;
    for (int book = 0; book < (kShared ? 2 : 1); ++book) {
      alignas(64) float aim[32];
      std::copy_n(at.aim + first, kSubSize, aim);
      SubBlockFit fit;
      for (int u = 0; u < kSubSize / 8; ++u) {
        UnitFit<8> unit = find(in, aim, first, u, s, book);
        fit.book[u] = book;
        if (!kShared) {
          const UnitFit<8> other = find(in, aim, first, u, s, 1);
          if (other.cost < unit.cost) {
            unit = other;
            fit.book[u] = 1;
          }
        }
        take_unit(in, first, kSubSize, s, u, unit, aim, fit);
      }
      if (fit.cost < best.cost) best = fit;
    }
    return best;
  }

 private:
  static UnitFit<8> find(const Normalised& in, const float* aim, int first, int u, float s, int book) {
    return Unit(iq1_book(book), in, aim + u * 8, first + u * 8, s, false).find(Parity::kFree);
  }
};

template <typename Type>
class LatticeFeedback {
 public:
  static constexpr int kSubBlocks = kTile / Type::kSubSize;
  static constexpr int kUnits = Type::kSubSize / Type::kDim;  // per sub-block

  struct Fit {
    explicit Fit(const Normalised& in) : at(in) {}
    Settled at;
    float d = 0.0f;
    LatticeCodes codes;
  };

  explicit LatticeFeedback(const Normalised& in) : in_(in) {}

  static float scale(float d, int l) { return d * (Type::kLeastScale * static_cast<float>(1 + 2 * l)); }

  // d and l: where to start.
  Fit search(float d, const int* l, Effort effort) const {
    Fit best = pass(d, l, by_effort(effort, 1, 2, 4));
    for (int round = 0; round < by_effort(effort, 0, 2, 6); ++round) {
      alignas(64) float a[kTile];
      for (int j = 0; j < kTile; ++j) a[j] = scale(1.0f, best.codes.l[j / Type::kSubSize]) * best.at.level[j];
      const Refit refit = refit_scales(in_, best.at, a, nullptr);
      if (!refit.found || !(refit.d > 0.0)) break;
      const Fit again = pass(to_f16(refit.d, in_.unit), best.codes.l, 1);
      if (!(again.at.cost < best.at.cost)) break;
      best = again;
    }
    return best;
  }

 private:
  // Every sub-block tries the l within `reach` of the given ones.
  Fit pass(float d, const int* l, int reach) const {
    Fit fit(in_);
    fit.d = d;
    for (int b = 0; b < kSubBlocks; ++b) {
      const int first = b * Type::kSubSize;
      SubBlockFit best;
      best.cost = HUGE_VAL;
      for (int k = std::max(0, l[b] - reach); k <= std::min(Type::kScales - 1, l[b] + reach); ++k) {
        const SubBlockFit sub = Type::try_scale(in_, fit.at, first, scale(d, k));
        if (!(sub.cost < best.cost)) continue;
        best = sub;
        fit.codes.l[b] = k;
      }
      settle_levels(in_, fit.at, first, Type::kSubSize, scale(d, fit.codes.l[b]), best.level);
      for (int u = 0; u < kUnits; ++u) {
        fit.codes.index[b * kUnits + u] = best.index[u];
        if (Type::kDim == 8) fit.codes.book[b * kUnits + u] = best.book[u];
      }
    }
    for (int j = 0; j < kTile; ++j) {
      if (fit.at.level[j] < 0.0f) fit.codes.signs[j / 8] |= static_cast<uint8_t>(1u << (j % 8));
    }
    return fit;
  }

  const Normalised& in_;
};

// d and l of a block that the plain encoder wrote.
template <typename Block>
float start_of(const Block& block, int* l) {
  for (int b = 0; b < static_cast<int>(2 * sizeof block.scales); ++b) l[b] = block.scales[b / 2] >> (4 * (b % 2)) & 15;
  return f16_to_f32(block.d);
}

template <>
float start_of(const BlockIQ2_XXS& block, int* l) {
  for (int b = 0; b < 8; ++b) l[b] = block.qs[4 * b + 3] >> 12;
  return f16_to_f32(block.d);
}

template <>
float start_of(const BlockIQ3_XXS& block, int* l) {
  for (int b = 0; b < 8; ++b) l[b] = block.gas[4 * b + 3] >> 4;
  return f16_to_f32(block.d);
}

template <>
float start_of(const BlockIQ1_S& block, int* l) {
  for (int b = 0; b < 8; ++b) l[b] = block.qh[b] >> 12 & 7;
  return f16_to_f32(block.d);
}

template <>
float start_of(const BlockIQ1_M& block, int* l) {
  uint32_t d = 0;
  for (int b = 0; b < 16; ++b) l[b] = block.scales[b / 4] >> (3 * (b % 4)) & 7;
  for (int word = 0; word < 4; ++word) d |= static_cast<uint32_t>(block.scales[word] >> 12) << (4 * word);
  return f16_to_f32(static_cast<uint16_t>(d));
}

template <typename Type, typename Block>
void encode_lattice(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  const Normalised in(tile, 0, kTile);
  int l[16] = {};
  const float d = start_of(load_le<Block>(tile.start), l) / in.unit;
  Block block{};
  if (in.vanishes || !(d > 0.0f)) {
    std::copy_n(tile.x, kTile, errors);
  } else {
    const auto fit = LatticeFeedback<Type>(in).search(d, l, effort);
    pack_block(stored_scale(fit.d, in.unit), fit.codes, block);
    store_errors(in, fit.at, errors);
  }
  store_le(out, block);
}

void encode_tile_IQ2_XXS(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_lattice<SignedLattice<Iq2xxs>, BlockIQ2_XXS>(tile, effort, out, errors);
}

void encode_tile_IQ2_XS(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_lattice<SignedLattice<Iq2xs>, BlockIQ2_XS>(tile, effort, out, errors);
}

void encode_tile_IQ2_S(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_lattice<SignedLattice<Iq2s>, BlockIQ2_S>(tile, effort, out, errors);
}

void encode_tile_IQ3_XXS(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_lattice<SignedLattice<Iq3xxs>, BlockIQ3_XXS>(tile, effort, out, errors);
}

void encode_tile_IQ3_S(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_lattice<SignedLattice<Iq3s>, BlockIQ3_S>(tile, effort, out, errors);
}

void encode_tile_IQ1_S(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_lattice<TernaryLattice<Iq1s>, BlockIQ1_S>(tile, effort, out, errors);
}

void encode_tile_IQ1_M(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_lattice<TernaryLattice<Iq1m>, BlockIQ1_M>(tile, effort, out, errors);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_TILE_ENCODER(IQ2_XXS)
QUERN_DISPATCH_TILE_ENCODER(IQ2_XS)
QUERN_DISPATCH_TILE_ENCODER(IQ2_S)
QUERN_DISPATCH_TILE_ENCODER(IQ3_XXS)
QUERN_DISPATCH_TILE_ENCODER(IQ3_S)
QUERN_DISPATCH_TILE_ENCODER(IQ1_S)
QUERN_DISPATCH_TILE_ENCODER(IQ1_M)
}  // namespace quern
#endif
