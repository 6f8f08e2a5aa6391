// Encoders of the types whose codes are -1, 0, 1: IQ1_S and IQ1_M (rows of a code book plus or minus 1/8) and TQ1_0, TQ2_0 (free).

#include "quantize/block_weights.h"
#include "quantize/pack_blocks.h"
#include "quantize/row_encoders.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/encode_ternary_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/lattice_search-inl.h"
#include "quantize/lattice_types-inl.h"
#include "quantize/levels-inl.h"
#include "quantize/scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

constexpr int kSuper = 256;

// kShared: all units of a sub-block take the same book (IQ1_S). Otherwise each takes its own (IQ1_M).
template <int kSub, bool kShared>
class Iq1Units {
 public:
  static constexpr int kDim = 8, kEntries = 2048, kSubSize = kSub, kScales = 8;
  static constexpr float kTop = 1.125f, kLadderLow = 0.15f;
  static constexpr float kTargets[] = {15, 13, 17, 11, 14, 16, 12, 10};
  static constexpr int kUnitsPerSubBlock = kSubSize / kDim;
  using Search = LatticeSuperBlock<Iq1Units>;
  static float scale(float d, int l) { return iq1_scale(d, l); }

  explicit Iq1Units(const BlockWeights<kSuper>& in) : in_(in) {
    for (int i = 0; i < kSuper; ++i) wx_[i] = in.w[i] * in.x[i];
    for (int b = 0; b < Search::kSubBlocks; ++b) ladders_[b] = Search::ladder(in.x + b * kSubSize, in.w + b * kSubSize);
    Signs signs[Search::kUnits];
    for (Signs& s : signs) s = Signs::kOwn;
    for (int book = 0; book < 2; ++book) {
      find_envelopes<kDim, kEntries, kUnitsPerSubBlock>(iq1_book(book), wx_, in.w, signs, ladders_, envelopes_[book]);
    }
  }

  typename Search::Fit search(Effort effort) const { return Search(*this, ladders_, in_.unit).search(effort); }

  Lanes costs(int b, const Lanes& s) const {
    Lanes sums[2] = {splat(0.0f), splat(0.0f)};
    for (int u = b * kUnitsPerSubBlock; u < (b + 1) * kUnitsPerSubBlock; ++u) {
      const Lanes up = lowest(envelopes_[0][u], s);
      const Lanes down = lowest(envelopes_[1][u], s);
      sums[0] += kShared ? up : min(up, down);
      sums[1] += down;
    }
    return kShared ? min(sums[0], sums[1]) : sums[0];
  }

  void choose(int b, float s, bool exact, UnitChoice* units, double& p, double& r) const {
    Entry entries[2][kUnitsPerSubBlock];
    float sums[2] = {0.0f, 0.0f};
    for (int book = 0; book < 2; ++book) {
      for (int k = 0; k < kUnitsPerSubBlock; ++k) {
        const int u = b * kUnitsPerSubBlock + k;
        entries[book][k] =
            exact ? lowest_of_book(iq1_book(book), wx_ + u * kDim, in_.w + u * kDim, Signs::kOwn, s) : lowest_at(envelopes_[book][u], s);
        sums[book] += entries[book][k].cost;
      }
    }
    for (int k = 0; k < kUnitsPerSubBlock; ++k) {
      const bool down = kShared ? sums[1] < sums[0] : entries[1][k].cost < entries[0][k].cost;
      const Entry& chosen = entries[down ? 1 : 0][k];
      units[b * kUnitsPerSubBlock + k] = {chosen.index, down ? 1 : 0, false};
      p += static_cast<double>(chosen.p);
      r += static_cast<double>(chosen.r);
    }
  }

 private:
  const BlockWeights<kSuper>& in_;
  alignas(64) float wx_[kSuper];
  Lanes ladders_[Search::kSubBlocks];
  Envelope envelopes_[2][Search::kUnits];
};

template <typename Units, typename Block>
void encode_iq1(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, Block>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, Block& block) {
    if (in.vanishes) return;
    const typename Units::Search::Fit fit = Units(in).search(effort);
    LatticeCodes codes;
    std::copy_n(fit.l, Units::Search::kSubBlocks, codes.l);
    for (int u = 0; u < Units::Search::kUnits; ++u) {
      codes.index[u] = fit.units[u].index;
      codes.book[u] = fit.units[u].book;
    }
    pack_block(stored_scale(fit.d, in.unit), codes, block);
  });
}

void encode_row_IQ1_S(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_iq1<Iq1Units<32, true>, BlockIQ1_S>(x, importance, n_cols, effort, out);
}

void encode_row_IQ1_M(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_iq1<Iq1Units<16, false>, BlockIQ1_M>(x, importance, n_cols, effort, out);
}

// One scale for 256 free ternary codes (0, 1, 2 mean -1, 0, 1). The ladder includes the largest magnitude itself, so weights that are
// ternary already keep their values.
template <typename Block>
void encode_ternary(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  using Levels = UniformLevels<-1, 1>;
  for_each_block<kSuper, Block>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, Block& block) {
    const Ladder ladder = Ladder{0.07f, 0.03f, 2}.for_effort(effort);
    const float d = in.vanishes ? 0.0f : search_f16_scale<Levels>(in.x, in.w, kSuper, in.unit, ladder).scale;
    uint8_t codes[kSuper];
    codes_for_scale<Levels>(in.x, kSuper, d, codes);
    pack_block(stored_scale(d, in.unit), codes, block);
  });
}

void encode_row_TQ2_0(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_ternary<BlockTQ2_0>(x, importance, n_cols, effort, out);
}

void encode_row_TQ1_0(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_ternary<BlockTQ1_0>(x, importance, n_cols, effort, out);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROW_ENCODER(IQ1_S)
QUERN_DISPATCH_ROW_ENCODER(IQ1_M)
QUERN_DISPATCH_ROW_ENCODER(TQ1_0)
QUERN_DISPATCH_ROW_ENCODER(TQ2_0)
}  // namespace quern
#endif
