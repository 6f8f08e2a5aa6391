// Encoders of the types whose codes are -1, 0, 1: IQ1_S and IQ1_M (rows of a code book plus or minus 1/8) and TQ1_0, TQ2_0 (free).

#include "formats/blocks.h"
#include "quantize/block_weights.h"
#include "quantize/pack.h"
#include "quantize/row_encoders.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/encode_ternary_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/lattice_search-inl.h"
#include "quantize/levels-inl.h"
#include "quantize/scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

constexpr int kSuper = 256;

using Iq1Book = LatticeBook<8, 2048>;

// Book 0 adds 1/8 to every value, book 1 subtracts it.
const Iq1Book& iq1_book(int which) {
  static const Iq1Book books[2] = {Iq1Book(kIq1Grid, 0.125f), Iq1Book(kIq1Grid, -0.125f)};
  return books[which];
}

// kShared: all units of a sub-block take the same book (IQ1_S). Otherwise each takes its own (IQ1_M).
template <int kSub, bool kShared>
class Iq1Units {
 public:
  static constexpr int kDim = 8, kEntries = 2048, kSubSize = kSub, kScales = 8;
  static constexpr float kTop = 1.125f, kLadderLow = 0.15f;
  static constexpr float kTargets[] = {15, 13, 17, 11, 14, 16, 12, 10};
  static constexpr int kUnitsPerSubBlock = kSubSize / kDim;
  using Search = LatticeSuperBlock<Iq1Units>;
  static float scale(float d, int l) { return d * static_cast<float>(2 * l + 1); }

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

void encode_row_IQ1_S(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, BlockIQ1_S>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockIQ1_S& block) {
    if (in.vanishes) return;
    const auto fit = Iq1Units<32, true>(in).search(effort);
    block.d = stored_scale(fit.d, in.unit);
    for (int b = 0; b < 8; ++b) {
      int qh = fit.l[b] << 12 | fit.units[4 * b].book << 15;
      for (int k = 0; k < 4; ++k) {
        const int index = fit.units[4 * b + k].index;
        block.qs[4 * b + k] = static_cast<uint8_t>(index & 255);
        qh |= (index >> 8) << (3 * k);
      }
      block.qh[b] = static_cast<uint16_t>(qh);
    }
  });
}

void encode_row_IQ1_M(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, BlockIQ1_M>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockIQ1_M& block) {
    if (in.vanishes) return;
    const auto fit = Iq1Units<16, false>(in).search(effort);
    for (int u = 0; u < 32; ++u) {
      block.qs[u] = static_cast<uint8_t>(fit.units[u].index & 255);
      block.qh[u / 2] |= static_cast<uint8_t>((fit.units[u].index >> 8 | fit.units[u].book << 3) << (4 * (u % 2)));
    }
    const uint32_t d = stored_scale(fit.d, in.unit);
    for (int word = 0; word < 4; ++word) {
      uint32_t bits = (d >> (4 * word) & 15) << 12;
      for (int m = 0; m < 4; ++m) bits |= static_cast<uint32_t>(fit.l[4 * word + m]) << (3 * m);
      block.scales[word] = static_cast<uint16_t>(bits);
    }
  });
}

// One scale for 256 free ternary codes (0, 1, 2 mean -1, 0, 1). The ladder includes the largest magnitude itself, so weights that are
// ternary already keep their values.
template <typename Block>
void search_ternary(const BlockWeights<kSuper>& in, Effort effort, Block& block, uint8_t codes[kSuper]) {
  using Levels = UniformLevels<-1, 1>;
  const float d =
      in.vanishes ? 0.0f : search_f16_scale<Levels>(in.x, in.w, kSuper, in.unit, Ladder{0.07f, 0.03f, 2}.for_effort(effort)).scale;
  block.d = stored_scale(d, in.unit);
  codes_for_scale<Levels>(in.x, kSuper, d, codes);
}

void encode_row_TQ2_0(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, BlockTQ2_0>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockTQ2_0& block) {
    uint8_t codes[kSuper];
    search_ternary(in, effort, block, codes);
    store_2bit_planes(codes, 0, block.qs);
  });
}

// Digits n = 0.. of a byte are the codes at first, first + stride, ...; five digits as a fraction of 3^5, rounded up so that the
// decoder's multiplications find them again.
uint8_t pack_trits(const uint8_t* first, int stride, int n_digits) {
  int value = 0;
  for (int n = 0; n < 5; ++n) value = value * 3 + (n < n_digits ? first[n * stride] : 0);
  return static_cast<uint8_t>((value * 256 + 242) / 243);
}

void encode_row_TQ1_0(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  for_each_block<kSuper, BlockTQ1_0>(x, importance, n_cols, out, [effort](const BlockWeights<kSuper>& in, BlockTQ1_0& block) {
    uint8_t codes[kSuper];
    search_ternary(in, effort, block, codes);
    for (int t = 0; t < 32; ++t) block.qs[t] = pack_trits(codes + t, 32, 5);
    for (int t = 0; t < 16; ++t) block.qs[32 + t] = pack_trits(codes + 160 + t, 16, 5);
    for (int t = 0; t < 4; ++t) block.qh[t] = pack_trits(codes + 240 + t, 4, 4);
  });
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
