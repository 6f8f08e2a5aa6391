// Encoders of the K-quants and IQ4_XS: 256 weights share binary16 scales, sub-blocks of 16 or 32 have integer scales (and mins).

#include "formats/types/blocks.h"
#include "quantize/plain/block_weights.h"
#include "quantize/plain/encoders.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/plain/encode_k_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/plain/affine_rows-inl.h"
#include "quantize/plain/levels-inl.h"
#include "quantize/plain/scaled_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Q2_K, Q4_K, Q5_K. starts: by merit; the default tries 8 of them.
template <typename Search, typename Block, int kStarts>
void encode_affine(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, float clip_step,
                   const typename Search::Start (&starts)[kStarts], Effort effort, std::byte* out) {
  constexpr int kSize = Search::kSize;
  constexpr int kSubBlocks = kSuper / kSize;
  typename Search::Columns of_search;
  const auto prepare = [&](const float* w) { of_search = typename Search::Columns(w); };
  const auto encode = [&](const RowGroup<kSuper>& group, const auto& put) {
    const Search search(group, of_search, clip_step, by_effort(effort, 2, 3, 8));
    const typename Search::Fit fit = search.search(starts, by_effort(effort, 1, 8, kStarts), by_effort(effort, 1, 2, 8));
    uint8_t codes[kSuper][kLanes];
    alignas(64) float d[kLanes];
    alignas(64) float dmin[kLanes];
    alignas(64) float scale[kSubBlocks][kLanes];
    alignas(64) float min[kSubBlocks][kLanes];
    store(fit.d, d);
    store(fit.dmin, dmin);
    for (int b = 0; b < kSubBlocks; ++b) {
      store(fit.scale[b], scale[b]);
      store(fit.min[b], min[b]);
      affine_codes_of_rows(group.x + b * kSize, kSize, Search::kMaxCode, fit.d * fit.scale[b], fit.dmin * fit.min[b], codes + b * kSize);
    }
    uint8_t own_codes[kLanes][kSuper];
    rows_of_codes(codes, own_codes);
    put([&](int i, Block& block) {
      int own_scale[kSubBlocks];
      int own_min[kSubBlocks];
      for (int b = 0; b < kSubBlocks; ++b) {
        own_scale[b] = static_cast<int>(scale[b][i]);
        own_min[b] = static_cast<int>(min[b][i]);
      }
      pack_block(stored_scale(d[i], group.unit[i]), stored_scale(dmin[i], group.unit[i]), own_scale, own_min, own_codes[i], block);
    });
  };
  for_each_group<kSuper, Block>(x, n_rows, importance, n_cols, out, encode, prepare);
}

void encode_rows_Q2_K(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  using Search = AffineRows<16, 3, 15, 12>;
  static constexpr Search::Start kStarts[] = {{15, 15}, {14, 14}, {12, 12}, {17, 17}, {13, 15},
                                              {15, 13}, {17, 14}, {14, 17}, {19, 15}, {11, 14}};
  encode_affine<Search, BlockQ2_K>(x, n_rows, importance, n_cols, 0.2f, kStarts, effort, out);
}

// Q4_K and Q5_K.
template <typename Search, typename Block>
void encode_affine_32(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, float clip_step, Effort effort,
                      std::byte* out) {
  static constexpr typename Search::Start kStarts[] = {{63, 63}, {60, 60}, {55, 55}, {50, 50}, {61, 58},
                                                       {58, 61}, {53, 62}, {62, 53}, {66, 66}, {46, 46}};
  encode_affine<Search, Block>(x, n_rows, importance, n_cols, clip_step, kStarts, effort, out);
}

void encode_rows_Q4_K(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_affine_32<AffineRows<8, 15, 63, 16>, BlockQ4_K>(x, n_rows, importance, n_cols, 0.08f, effort, out);
}

void encode_rows_Q5_K(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_affine_32<AffineRows<8, 31, 63, 32>, BlockQ5_K>(x, n_rows, importance, n_cols, 0.04f, effort, out);
}

// Q3_K, Q6_K, IQ4_XS: signed integer scales. targets: by merit; the default tries `usual` of them.
template <typename Search, typename Levels, typename Block, int kTargets>
void encode_scaled(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, const Ladder& ladder,
                   const float (&targets)[kTargets], int usual, Effort effort, std::byte* out) {
  constexpr int kSubBlocks = kSuper / Search::kSize;
  typename Search::Columns of_search;
  const auto prepare = [&](const float* w) { of_search = typename Search::Columns(w); };
  const auto encode = [&](const RowGroup<kSuper>& group, const auto& put) {
    const Search search(group, of_search, ladder.for_effort(effort));
    const typename Search::Fit fit = search.search(targets, by_effort(effort, 1, usual, kTargets), by_effort(effort, 1, 1, 3));
    uint8_t codes[kSuper][kLanes];
    alignas(64) float d[kLanes];
    alignas(64) float l[kSubBlocks][kLanes];
    store(fit.d, d);
    for (int b = 0; b < kSubBlocks; ++b) {
      store(fit.l[b], l[b]);
      codes_of_rows<Levels>(group.x + b * Search::kSize, Search::kSize, fit.d * fit.l[b], codes + b * Search::kSize);
    }
    uint8_t own_codes[kLanes][kSuper];
    rows_of_codes(codes, own_codes);
    put([&](int i, Block& block) {
      int own_l[kSubBlocks];
      for (int b = 0; b < kSubBlocks; ++b) own_l[b] = static_cast<int>(l[b][i]);
      pack_block(stored_scale(d[i], group.unit[i]), own_l, own_codes[i], block);
    });
  };
  for_each_group<kSuper, Block>(x, n_rows, importance, n_cols, out, encode, prepare);
}

void encode_rows_Q3_K(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  using Levels = UniformLevels<-4, 3>;
  static constexpr float kTargets[] = {-32, 31, -30, 29, -27, 25, -31, 30, -29, 28, -28, 27, -26, 26, -24, 23};
  encode_scaled<ScaledRows<Levels, 16, -32, 31, Window{4, 2, 1}>, Levels, BlockQ3_K>(x, n_rows, importance, n_cols, {0.51f, 0.0857f, 8},
                                                                                     kTargets, 3, effort, out);
}

void encode_rows_Q6_K(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  using Levels = UniformLevels<-32, 31>;
  static constexpr float kTargets[] = {-128, 127, -120, 112, -124, 124, -116, 108, -104, 100};
  encode_scaled<ScaledRows<Levels, 16, -128, 127, Window{8, 2, 2}, Window{16, 2, 1}>, Levels, BlockQ6_K>(
      x, n_rows, importance, n_cols, {0.85f, 0.017f, 12}, kTargets, 4, effort, out);
}

void encode_rows_IQ4_XS(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  static constexpr float kTargets[] = {-32, 31, -30, 29, -31, 30, -28, 27, -26, 25};
  encode_scaled<ScaledRows<Iq4nlLevels, 8, -32, 31, Window{4, 2, 1}, Window{8, 4, 1}>, Iq4nlLevels, BlockIQ4_XS>(
      x, n_rows, importance, n_cols, {0.6f, 0.075f, 8}, kTargets, 3, effort, out);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROWS_ENCODER(Q2_K)
QUERN_DISPATCH_ROWS_ENCODER(Q3_K)
QUERN_DISPATCH_ROWS_ENCODER(Q4_K)
QUERN_DISPATCH_ROWS_ENCODER(Q5_K)
QUERN_DISPATCH_ROWS_ENCODER(Q6_K)
QUERN_DISPATCH_ROWS_ENCODER(IQ4_XS)
}  // namespace quern
#endif
