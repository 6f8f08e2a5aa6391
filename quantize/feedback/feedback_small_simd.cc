// Error feedback for the types with one scale (and perhaps an offset) per block: Q4_0 to Q8_0, IQ4_NL, MXFP4 of 32 weights, Q2_0 of 64,
// TQ1_0 and TQ2_0 of 256. Scales are tried as in the plain search, but judged by their cost with feedback; a second, finer ladder follows.

#include <array>

#include "formats/types/blocks.h"
#include "quantize/feedback/feedback_tile.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/feedback/feedback_small_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/feedback/feedback_search-inl.h"
#include "quantize/plain/affine_search-inl.h"
#include "quantize/plain/scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Runs encode(const Normalised&, Settled&, Block&) over the blocks of a tile. Each is normalised by itself, and its errors move the
// aims of the rest of the tile.
template <int kSize, typename Block, typename Encode>
void for_each_feedback_block(const FeedbackTile& tile, std::byte* out, float* errors, Encode encode, float smallest = kSmallestForF16) {
  alignas(64) float shifted[kTile];
  std::copy_n(tile.shifted, tile.n, shifted);
  FeedbackTile now = tile;
  now.shifted = shifted;
  for (int first = 0; first < tile.n; first += kSize, out += sizeof(Block)) {
    const Normalised in(now, first, kSize, smallest);
    Block block{};
    if (in.vanishes) {
      std::copy_n(tile.x + first, kSize, errors + first);
    } else {
      Settled at(in);
      encode(in, at, block);
      store_errors(in, at, errors + first);
    }
    store_le(out, block);
    const int rest = first + kSize;
    for (int j = first; j < rest; ++j) add_scaled(errors[j], tile.r + j * tile.n + rest, tile.n - rest, shifted + rest);
  }
}

struct ScaleChoice {
  float scale = 0.0f;
  float cost = HUGE_VALF;
};

template <typename Levels>
void try_ladder(const Normalised& in, const Settled& at, float base, const Ladder& ladder, ScaleChoice& best) {
  alignas(64) float rungs[kLanes];
  for (int c = 0; c < kLanes; ++c) rungs[c] = static_cast<float>(c);
  for (int k = 0; k < ladder.rungs; k += kLanes) {
    const Lanes rung = splat(ladder.first) + (load(rungs) + splat(static_cast<float>(k))) * splat(ladder.step);
    const Lanes scale = round_to_f16(rung * splat(base), in.unit);
    const BestLane found = minimum(feedback_costs<Levels>(in, at, 0, in.n, scale, splat(0.0f)));
    if (found.value < best.cost) best = {lane(scale, found.lane), found.value};
  }
}

template <typename Levels, int kSize, typename Block, typename Pack>
void encode_scaled(const FeedbackTile& tile, const Ladder& usual, Effort effort, std::byte* out, float* errors, Pack pack) {
  const Ladder ladder = usual.for_effort(effort);
  for_each_feedback_block<kSize, Block>(tile, out, errors, [&](const Normalised& in, Settled& at, Block& block) {
    const float outlier = extreme(at.aim, in.w, kSize);
    ScaleChoice best;
    if (Levels::kLowest == -Levels::kHighest) {
      try_ladder<Levels>(in, at, std::fabs(outlier) / Levels::kHighest, ladder, best);
    } else {
      try_ladder<Levels>(in, at, outlier / Levels::kLowest, ladder, best);
      try_ladder<Levels>(in, at, outlier / Levels::kHighest, ladder, best);
    }
    const float coarse = best.scale;
    try_ladder<Levels>(in, at, coarse, {1.0f - ladder.step, ladder.step / 8.0f, kLanes}, best);
    settle<Levels>(in, at, 0, kSize, best.scale, 0.0f);
    uint8_t codes[kSize];
    for (int j = 0; j < kSize; j += kLanes) {
      alignas(64) float values[kLanes];
      store(Levels::code(load(at.level + j)), values);
      for (int c = 0; c < kLanes; ++c) codes[j + c] = static_cast<uint8_t>(values[c]);
    }
    pack(stored_scale(best.scale, in.unit), codes, block);
  });
}

template <typename Block>
void pack_with_nibbles(uint16_t d, const uint8_t* codes, Block& block) {
  block.d = d;
  store_nibbles(codes, block.qs);
}

void encode_tile_Q4_0(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<UniformLevels<-8, 7>, 32, BlockQ4_0>(tile, {0.6f, 0.022f, 32}, effort, out, errors, pack_with_nibbles<BlockQ4_0>);
}

void encode_tile_IQ4_NL(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<Iq4nlLevels, 32, BlockIQ4_NL>(tile, {0.6f, 0.022f, 32}, effort, out, errors, pack_with_nibbles<BlockIQ4_NL>);
}

void encode_tile_Q5_0(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<UniformLevels<-16, 15>, 32, BlockQ5_0>(tile, {0.65f, 0.02f, 32}, effort, out, errors,
                                                       [](uint16_t d, const uint8_t* codes, BlockQ5_0& block) {
                                                         pack_with_nibbles(d, codes, block);
                                                         store_fifth_bits(codes, block.qh);
                                                       });
}

void encode_tile_Q8_0(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<UniformLevels<-127, 127>, 32, BlockQ8_0>(tile, {0.995f, 0.0043f, 48}, effort, out, errors,
                                                         [](uint16_t d, const uint8_t* codes, BlockQ8_0& block) {
                                                           block.d = d;
                                                           for (int e = 0; e < 32; ++e) block.qs[e] = static_cast<int8_t>(codes[e] - 127);
                                                         });
}

template <typename Block>
void encode_ternary(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<UniformLevels<-1, 1>, 256, Block>(tile, {0.07f, 0.03f, 32}, effort, out, errors,
                                                  [](uint16_t d, const uint8_t* codes, Block& block) { pack_block(d, codes, block); });
}

void encode_tile_TQ1_0(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_ternary<BlockTQ1_0>(tile, effort, out, errors);
}

void encode_tile_TQ2_0(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_ternary<BlockTQ2_0>(tile, effort, out, errors);
}

void encode_tile_Q2_0(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<UniformLevels<-2, 1>, 64, BlockQ2_0>(
      tile, {0.225f, 0.025f, 32}, effort, out, errors,
      [](uint16_t d, const uint8_t* codes, BlockQ2_0& block) { pack_block(d, codes, block); });
}

// y = q d + m: 16 pairs around the plain search's, twice, the second time nearer.
template <int kMaxCode, typename Block, typename Pack>
void encode_offset(const FeedbackTile& tile, float clip_step, Effort effort, std::byte* out, float* errors, Pack pack) {
  using Levels = UniformLevels<0, kMaxCode>;
  for_each_feedback_block<32, Block>(tile, out, errors, [&](const Normalised& in, Settled& at, Block& block) {
    const auto round = [&in](const Lanes& value) { return round_to_f16(value, in.unit); };
    const AffineFit plain = search_affine(at.aim, in.w, 32, {kMaxCode, clip_step, by_effort(effort, 3, 6, 12), false}, round);
    float scale = plain.scale;
    float min = plain.min;
    for (float step = 0.5f; step > 0.05f; step *= 0.4f) {
      alignas(64) float scales[kLanes];
      alignas(64) float mins[kLanes];
      for (int c = 0; c < kLanes; ++c) {
        // Both ends of the range move by up to a step and a half of the codes; candidate 0 is the pair itself.
        const float low = c == 0 ? 0.0f : static_cast<float>(c % 4 - 1) * step * scale;
        const float high = c == 0 ? 0.0f : static_cast<float>(c / 4 - 1) * step * scale;
        scales[c] = scale + (high - low) / kMaxCode;
        mins[c] = min - low;
      }
      const Lanes s = round(load(scales));
      const Lanes m = round(load(mins));
      const int found = minimum(feedback_costs<Levels>(in, at, 0, 32, s, m)).lane;
      scale = lane(s, found);
      min = lane(m, found);
    }
    settle<Levels>(in, at, 0, 32, scale, min);
    uint8_t codes[32];
    for (int j = 0; j < 32; ++j) codes[j] = static_cast<uint8_t>(at.level[j]);
    block.d = stored_scale(scale, in.unit);
    block.m = stored_scale(-min, in.unit);
    pack(codes, block);
  });
}

void encode_tile_Q4_1(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_offset<15, BlockQ4_1>(tile, 0.08f, effort, out, errors,
                               [](const uint8_t* codes, BlockQ4_1& block) { store_nibbles(codes, block.qs); });
}

void encode_tile_Q5_1(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_offset<31, BlockQ5_1>(tile, 0.06f, effort, out, errors, [](const uint8_t* codes, BlockQ5_1& block) {
    store_nibbles(codes, block.qs);
    store_fifth_bits(codes, block.qh);
  });
}

void encode_tile_MXFP4(const FeedbackTile& tile, Effort, std::byte* out, float* errors) {
  static constexpr int kOffsets[kLanes] = {0, 1, -1, 2, -2, -3, -4};
  const auto encode = [](const Normalised& in, Settled& at, BlockMXFP4& block) {
    const int unit_exponent = std::ilogb(in.unit);
    int exponents[kLanes];
    alignas(64) float scales[kLanes];
    for (int c = 0; c < kLanes; ++c) {
      exponents[c] = std::clamp(unit_exponent - 3 + kOffsets[c], -128, 124);
      scales[c] = std::ldexp(1.0f, exponents[c] - unit_exponent);
    }
    const int best = minimum(feedback_costs<Fp4Levels>(in, at, 0, 32, load(scales), splat(0.0f))).lane;
    settle<Fp4Levels>(in, at, 0, 32, scales[best], 0.0f);
    block.e = static_cast<uint8_t>(exponents[best] + 128);
    uint8_t codes[32];
    for (int j = 0; j < 32; ++j) codes[j] = static_cast<uint8_t>(lane(Fp4Levels::code(splat(at.level[j])), 0));
    store_nibbles(codes, block.qs);
  };
  for_each_feedback_block<32, BlockMXFP4>(tile, out, errors, encode, std::numeric_limits<float>::denorm_min());
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_TILE_ENCODER(Q4_0)
QUERN_DISPATCH_TILE_ENCODER(Q4_1)
QUERN_DISPATCH_TILE_ENCODER(Q5_0)
QUERN_DISPATCH_TILE_ENCODER(Q5_1)
QUERN_DISPATCH_TILE_ENCODER(Q8_0)
QUERN_DISPATCH_TILE_ENCODER(IQ4_NL)
QUERN_DISPATCH_TILE_ENCODER(MXFP4)
QUERN_DISPATCH_TILE_ENCODER(Q2_0)
QUERN_DISPATCH_TILE_ENCODER(TQ1_0)
QUERN_DISPATCH_TILE_ENCODER(TQ2_0)
}  // namespace quern
#endif
