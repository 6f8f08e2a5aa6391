// Encoders of IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S: magnitudes from a code book, signs apart.

#include <bit>

#include "quantize/block_weights.h"
#include "quantize/pack_blocks.h"
#include "quantize/row_encoders.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/encode_lattice_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/lattice_search-inl.h"
#include "quantize/lattice_types-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

constexpr int kSuper = 256;

// A super-block split into magnitudes and signs.
struct SignedWeights {
  const BlockWeights<kSuper>& in;
  alignas(64) float wx[kSuper];       // w |x|
  uint8_t negative[kSuper / 8] = {};  // bit j: element j of the group is below zero

  explicit SignedWeights(const BlockWeights<kSuper>& weights) : in(weights) {
    for (int i = 0; i < kSuper; ++i) {
      wx[i] = in.w[i] * std::fabs(in.x[i]);
      if (in.x[i] < 0.0f) negative[i / 8] |= static_cast<uint8_t>(1u << (i % 8));
    }
  }

  bool odd(int group) const { return std::popcount(negative[group]) % 2 != 0; }

  // Element of a unit whose wrong sign costs least with these magnitudes.
  template <size_t kDim>
  int cheapest_flip(int unit, const std::array<uint8_t, kDim>& magnitudes) const {
    const float* products = wx + unit * static_cast<int>(kDim);
    int cheapest = 0;
    for (int j = 1; j < static_cast<int>(kDim); ++j) {
      const auto cost = [&](int k) { return products[k] * static_cast<float>(magnitudes[static_cast<size_t>(k)]); };
      if (cost(j) < cost(cheapest)) cheapest = j;
    }
    return cheapest;
  }
};

// Units are independent: all signs stored, or even parity within each unit.
template <typename Spec>
class IndependentUnits : public Spec {
 public:
  static constexpr int kScales = 16;
  static constexpr float kTargets[] = {31, 29, 26, 34, 30, 28, 32, 24};
  static constexpr int kUnitsPerSubBlock = Spec::kSubSize / Spec::kDim;
  using Search = LatticeSuperBlock<IndependentUnits>;

  explicit IndependentUnits(const SignedWeights& weights) : weights_(weights) {
    for (int b = 0; b < Search::kSubBlocks; ++b) {
      ladders_[b] = Search::ladder(weights.in.x + b * Spec::kSubSize, weights.in.w + b * Spec::kSubSize);
    }
    for (int u = 0; u < Search::kUnits; ++u) signs_[u] = Spec::kEvenSigns && weights.odd(u) ? Signs::kOneFlipped : Signs::kOwn;
    find_envelopes<Spec::kDim, Spec::kEntries, kUnitsPerSubBlock>(book_of<Spec>(), weights.wx, weights.in.w, signs_, ladders_, envelopes_);
  }

  typename Search::Fit search(Effort effort) const { return Search(*this, ladders_, weights_.in.unit).search(effort); }

  Lanes costs(int b, const Lanes& s) const {
    Lanes sum = splat(0.0f);
    for (int k = 0; k < kUnitsPerSubBlock; ++k) sum += lowest(envelopes_[b * kUnitsPerSubBlock + k], s);
    return sum;
  }

  void choose(int b, float s, bool exact, UnitChoice* units, double& p, double& r) const {
    for (int u = b * kUnitsPerSubBlock; u < (b + 1) * kUnitsPerSubBlock; ++u) {
      const int first = u * Spec::kDim;
      const Entry entry =
          exact ? lowest_of_book(book_of<Spec>(), weights_.wx + first, weights_.in.w + first, signs_[u], s) : lowest_at(envelopes_[u], s);
      units[u] = {entry.index, 0, signs_[u] == Signs::kOneFlipped};
      p += static_cast<double>(entry.p);
      r += static_cast<double>(entry.r);
    }
  }

 private:
  const SignedWeights& weights_;
  Lanes ladders_[Search::kSubBlocks];
  Signs signs_[Search::kUnits];
  Envelope envelopes_[Search::kUnits];
};

// IQ3_XXS: parity covers 8 weights, so that either of two neighbouring units takes the wrong sign when it is odd.
class PairedUnits : public Iq3xxs {
 public:
  static constexpr int kScales = 16;
  static constexpr float kTargets[] = {31, 29, 26, 34, 30, 28, 32, 24};
  static constexpr int kUnitsPerSubBlock = kSubSize / kDim;
  using Search = LatticeSuperBlock<PairedUnits>;

  explicit PairedUnits(const SignedWeights& weights) : weights_(weights) {
    for (int b = 0; b < Search::kSubBlocks; ++b) ladders_[b] = Search::ladder(weights.in.x + b * kSubSize, weights.in.w + b * kSubSize);
    Signs own[Search::kUnits];
    Signs flipped[Search::kUnits];
    for (int u = 0; u < Search::kUnits; ++u) {
      own[u] = Signs::kOwn;
      flipped[u] = weights.odd(u / 2) ? Signs::kOneFlipped : Signs::kSkip;
    }
    find_envelopes<kDim, kEntries, kUnitsPerSubBlock>(book_of<Iq3xxs>(), weights.wx, weights.in.w, own, ladders_, own_);
    find_envelopes<kDim, kEntries, kUnitsPerSubBlock>(book_of<Iq3xxs>(), weights.wx, weights.in.w, flipped, ladders_, flipped_);
  }

  Search::Fit search(Effort effort) const { return Search(*this, ladders_, weights_.in.unit).search(effort); }

  Lanes costs(int b, const Lanes& s) const {
    Lanes sum = splat(0.0f);
    for (int u = b * kUnitsPerSubBlock; u < (b + 1) * kUnitsPerSubBlock; u += 2) {
      const Lanes first = lowest(own_[u], s);
      const Lanes second = lowest(own_[u + 1], s);
      sum += weights_.odd(u / 2) ? min(lowest(flipped_[u], s) + second, first + lowest(flipped_[u + 1], s)) : first + second;
    }
    return sum;
  }

  void choose(int b, float s, bool exact, UnitChoice* units, double& p, double& r) const {
    for (int u = b * kUnitsPerSubBlock; u < (b + 1) * kUnitsPerSubBlock; u += 2) {
      Entry entries[2] = {entry(u, Signs::kOwn, s, exact), entry(u + 1, Signs::kOwn, s, exact)};
      int flip = -1;
      if (weights_.odd(u / 2)) {
        const Entry flipped[2] = {entry(u, Signs::kOneFlipped, s, exact), entry(u + 1, Signs::kOneFlipped, s, exact)};
        flip = flipped[0].cost + entries[1].cost <= entries[0].cost + flipped[1].cost ? 0 : 1;
        entries[flip] = flipped[flip];
      }
      for (int k = 0; k < 2; ++k) {
        units[u + k] = {entries[k].index, 0, k == flip};
        p += static_cast<double>(entries[k].p);
        r += static_cast<double>(entries[k].r);
      }
    }
  }

 private:
  Entry entry(int u, Signs signs, float s, bool exact) const {
    if (exact) return lowest_of_book(book_of<Iq3xxs>(), weights_.wx + u * kDim, weights_.in.w + u * kDim, signs, s);
    return lowest_at(signs == Signs::kOwn ? own_[u] : flipped_[u], s);
  }

  const SignedWeights& weights_;
  Lanes ladders_[Search::kSubBlocks];
  Envelope own_[Search::kUnits];
  Envelope flipped_[Search::kUnits];
};

// What goes into the block: the weights' own signs but for the elements that parity flips.
template <typename Units>
LatticeCodes codes_of(const SignedWeights& weights, const typename Units::Search::Fit& fit) {
  LatticeCodes codes;
  std::copy_n(fit.l, Units::Search::kSubBlocks, codes.l);
  std::copy_n(weights.negative, kSuper / 8, codes.signs);
  for (int u = 0; u < Units::Search::kUnits; ++u) {
    codes.index[u] = fit.units[u].index;
    if (!fit.units[u].flipped) continue;
    const int element = u * Units::kDim + weights.cheapest_flip(u, Units::rows()[static_cast<size_t>(codes.index[u])]);
    codes.signs[element / 8] ^= static_cast<uint8_t>(1u << (element % 8));
  }
  return codes;
}

template <typename Block, typename Units>
void encode_row(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, Block>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, Block& block) {
    if (in.vanishes) return;
    const SignedWeights weights(in);
    const typename Units::Search::Fit fit = Units(weights).search(effort);
    pack_block(stored_scale(fit.d, in.unit), codes_of<Units>(weights, fit), block);
  });
}

void encode_row_IQ2_XXS(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_row<BlockIQ2_XXS, IndependentUnits<Iq2xxs>>(x, importance, n_cols, effort, out);
}

void encode_row_IQ2_XS(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_row<BlockIQ2_XS, IndependentUnits<Iq2xs>>(x, importance, n_cols, effort, out);
}

void encode_row_IQ2_S(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_row<BlockIQ2_S, IndependentUnits<Iq2s>>(x, importance, n_cols, effort, out);
}

void encode_row_IQ3_XXS(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_row<BlockIQ3_XXS, PairedUnits>(x, importance, n_cols, effort, out);
}

void encode_row_IQ3_S(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_row<BlockIQ3_S, IndependentUnits<Iq3s>>(x, importance, n_cols, effort, out);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROW_ENCODER(IQ2_XXS)
QUERN_DISPATCH_ROW_ENCODER(IQ2_XS)
QUERN_DISPATCH_ROW_ENCODER(IQ2_S)
QUERN_DISPATCH_ROW_ENCODER(IQ3_XXS)
QUERN_DISPATCH_ROW_ENCODER(IQ3_S)
}  // namespace quern
#endif
