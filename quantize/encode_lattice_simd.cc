// Encoders of IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S: magnitudes from a code book, signs apart.

#include <bit>
#include <cstring>

#include "formats/base/bytes.h"
#include "formats/blocks.h"
#include "quantize/block_weights.h"
#include "quantize/row_encoders.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/encode_lattice_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/lattice_search-inl.h"

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

inline float iq2_scale(float d, int l) { return d * (0.5f + static_cast<float>(l)) * 0.25f; }

struct Iq2xxs {
  static constexpr int kDim = 8, kEntries = 256, kSubSize = 32;
  static constexpr float kTop = 43.0f, kLadderLow = 0.25f;
  static constexpr bool kEvenSigns = true;
  static const auto& rows() { return kIq2xxsGrid; }
  static float scale(float d, int l) { return iq2_scale(d, l); }
};

struct Iq2xs : Iq2xxs {
  static constexpr int kEntries = 512, kSubSize = 16;
  static const auto& rows() { return kIq2xsGrid; }
};

struct Iq2s : Iq2xxs {
  static constexpr int kEntries = 1024, kSubSize = 16;
  static constexpr bool kEvenSigns = false;
  static const auto& rows() { return kIq2sGrid; }
};

struct Iq3s {
  static constexpr int kDim = 4, kEntries = 512, kSubSize = 32;
  static constexpr float kTop = 15.0f, kLadderLow = 0.4f;
  static constexpr bool kEvenSigns = false;
  static const auto& rows() { return kIq3sGrid; }
  static float scale(float d, int l) { return d * static_cast<float>(1 + 2 * l); }
};

struct Iq3xxs {
  static constexpr int kDim = 4, kEntries = 256, kSubSize = 32;
  static constexpr float kTop = 62.0f, kLadderLow = 0.4f;
  static const auto& rows() { return kIq3xxsGrid; }
  static float scale(float d, int l) { return d * (0.5f + static_cast<float>(l)) * 0.5f; }
};

template <typename Spec>
const LatticeBook<Spec::kDim, Spec::kEntries>& book_of() {
  static const LatticeBook<Spec::kDim, Spec::kEntries> book(Spec::rows(), 0.0f);
  return book;
}

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

// Sign bits of group g after the flip that parity asks for (units of 8).
template <typename Fit, typename Grid>
uint32_t group_signs(const SignedWeights& weights, const Fit& fit, const Grid& grid, int g) {
  uint32_t signs = weights.negative[g];
  if (fit.units[g].flipped) signs ^= 1u << weights.cheapest_flip(g, grid[static_cast<size_t>(fit.units[g].index)]);
  return signs;
}

// pack: everything of a block but d.

template <typename Fit>
void pack(const SignedWeights& weights, const Fit& fit, BlockIQ2_XXS& block) {
  for (int b = 0; b < 8; ++b) {
    uint32_t indices = 0;
    uint32_t signs = static_cast<uint32_t>(fit.l[b]) << 28;
    for (int k = 0; k < 4; ++k) {
      const int g = 4 * b + k;
      indices |= static_cast<uint32_t>(fit.units[g].index) << (8 * k);
      signs |= (group_signs(weights, fit, kIq2xxsGrid, g) & 127) << (7 * k);
    }
    store_le(block.qs + 4 * b, indices);
    store_le(block.qs + 4 * b + 2, signs);
  }
}

template <typename Fit>
void pack(const SignedWeights& weights, const Fit& fit, BlockIQ2_XS& block) {
  for (int g = 0; g < 32; ++g) {
    const uint32_t signs = group_signs(weights, fit, kIq2xsGrid, g) & 127;
    block.qs[g] = static_cast<uint16_t>(static_cast<uint32_t>(fit.units[g].index) | signs << 9);
  }
  for (int b = 0; b < 8; ++b) block.scales[b] = static_cast<uint8_t>(fit.l[2 * b] | fit.l[2 * b + 1] << 4);
}

template <typename Fit>
void pack(const SignedWeights& weights, const Fit& fit, BlockIQ2_S& block) {
  for (int g = 0; g < 32; ++g) {
    const int index = fit.units[g].index;
    block.qs[g] = static_cast<uint8_t>(index & 255);
    block.qh[g / 4] |= static_cast<uint8_t>((index >> 8) << (2 * (g % 4)));
  }
  std::memcpy(block.signs, weights.negative, sizeof block.signs);
  for (int b = 0; b < 8; ++b) block.scales[b] = static_cast<uint8_t>(fit.l[2 * b] | fit.l[2 * b + 1] << 4);
}

template <typename Fit>
void pack(const SignedWeights& weights, const Fit& fit, BlockIQ3_XXS& block) {
  for (int b = 0; b < 8; ++b) {
    uint32_t gas = static_cast<uint32_t>(fit.l[b]) << 28;
    for (int k = 0; k < 4; ++k) {
      const int g = 4 * b + k;
      uint32_t signs = weights.negative[g];
      for (int u = 2 * g; u < 2 * g + 2; ++u) {
        const UnitChoice& unit = fit.units[u];
        block.qs[u] = static_cast<uint8_t>(unit.index);
        if (!unit.flipped) continue;
        signs ^= 1u << (4 * (u % 2) + weights.cheapest_flip(u, kIq3xxsGrid[static_cast<size_t>(unit.index)]));
      }
      gas |= (signs & 127) << (7 * k);
    }
    store_le(block.gas + 4 * b, gas);
  }
}

template <typename Fit>
void pack(const SignedWeights& weights, const Fit& fit, BlockIQ3_S& block) {
  for (int u = 0; u < 64; ++u) {
    block.qs[u] = static_cast<uint8_t>(fit.units[u].index & 255);
    block.qh[u / 8] |= static_cast<uint8_t>((fit.units[u].index >> 8) << (u % 8));
  }
  std::memcpy(block.signs, weights.negative, sizeof block.signs);
  for (int b = 0; b < 4; ++b) block.scales[b] = static_cast<uint8_t>(fit.l[2 * b] | fit.l[2 * b + 1] << 4);
}

template <typename Block, typename Units>
void encode_row(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, Block>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, Block& block) {
    if (in.vanishes) return;
    const SignedWeights weights(in);
    const typename Units::Search::Fit fit = Units(weights).search(effort);
    block.d = stored_scale(fit.d, in.unit);
    pack(weights, fit, block);
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
