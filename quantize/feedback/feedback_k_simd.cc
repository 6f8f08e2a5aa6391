// Error feedback for the K-quants and IQ4_XS. Per super-block: d (and dmin) from the plain search on the shifted weights, then sub-block
// by sub-block the integers of least cost around the sub-block's own optimum; d and dmin are refitted by least squares under the tile's
// matrix for the codes found, and the whole is done again as long as it helps.

#include "formats/types/blocks.h"
#include "quantize/feedback/feedback_tile.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/feedback/feedback_k_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/feedback/feedback_search-inl.h"
#include "quantize/plain/affine_search-inl.h"
#include "quantize/plain/scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// y = (d S) q - (dmin M)
template <int kSubBlocks, int kMaxCode, int kMaxScale>
class AffineFeedback {
 public:
  static constexpr int kSize = kTile / kSubBlocks;
  using Levels = UniformLevels<0, kMaxCode>;

  struct Fit {
    explicit Fit(const Normalised& in) : at(in) {}
    Settled at;
    float d = 0.0f;
    float dmin = 0.0f;
    int scale[kSubBlocks] = {};
    int min[kSubBlocks] = {};
  };

  AffineFeedback(const Normalised& in, float clip_step) : in_(in), clip_step_(clip_step) {}

  // d, dmin: where to start.
  Fit search(float d, float dmin, Effort effort) const {
    Fit best = pass(d, dmin, nullptr);
    for (int round = 0; round < by_effort(effort, 1, 3, 8); ++round) {
      const Refit refit = refit_of(best);
      if (!refit.found) break;
      const Fit again = pass(to_f16(refit.d, in_.unit), to_f16(refit.dmin, in_.unit), &best);
      if (!(again.at.cost < best.at.cost)) break;
      best = again;
    }
    return best;
  }

 private:
  Refit refit_of(const Fit& fit) const {
    alignas(64) float a[kTile];
    alignas(64) float m[kTile];
    for (int j = 0; j < kTile; ++j) {
      a[j] = static_cast<float>(fit.scale[j / kSize]) * fit.at.level[j];
      m[j] = static_cast<float>(fit.min[j / kSize]);
    }
    return refit_scales(in_, fit.at, a, m);
  }

  // known: integers of an earlier pass to start from, or nullptr: each sub-block's own optimum.
  Fit pass(float d, float dmin, const Fit* known) const {
    Fit fit(in_);
    fit.d = d;
    fit.dmin = dmin;
    for (int b = 0; b < kSubBlocks; ++b) {
      float scale = 0.0f;
      float min = 0.0f;
      if (known != nullptr) {
        scale = static_cast<float>(known->scale[b]);
        min = static_cast<float>(known->min[b]);
      } else {
        const auto keep = [](const Lanes& value) { return value; };
        const AffineFit own = search_affine(fit.at.aim + b * kSize, in_.w + b * kSize, kSize, {kMaxCode, clip_step_, 2, true}, keep);
        scale = nearest_integer(own.scale, d);
        min = nearest_integer(own.min, dmin);
      }
      choose_pair(b, scale, min, fit);
      settle<Levels>(in_, fit.at, b * kSize, kSize, d * static_cast<float>(fit.scale[b]), dmin * static_cast<float>(fit.min[b]));
    }
    return fit;
  }

  static float nearest_integer(float value, float unit) {
    return unit > 0.0f ? std::nearbyint(std::min(value / unit, static_cast<float>(kMaxScale))) : 0.0f;
  }

  // The best of the 3 x 5 pairs around (scale, min), and once more around the best of them when it lies at the edge.
  void choose_pair(int b, float scale, float min, Fit& fit) const {
    for (int move = 0; move < 2; ++move) {
      alignas(64) float scales[kLanes];
      alignas(64) float mins[kLanes];
      for (int c = 0; c < kLanes; ++c) {
        scales[c] = scale + static_cast<float>(c % 3 - 1);
        mins[c] = min + static_cast<float>(c / 3 - 2);
      }
      const Lanes s = clamp(load(scales), 0.0f, kMaxScale);
      const Lanes m = clamp(load(mins), 0.0f, kMaxScale);
      const int found = minimum(feedback_costs<Levels>(in_, fit.at, b * kSize, kSize, splat(fit.d) * s, splat(fit.dmin) * m)).lane;
      const float best_scale = lane(s, found);
      const float best_min = lane(m, found);
      const bool moved = best_scale != scale || std::fabs(best_min - min) > 1.0f;
      scale = best_scale;
      min = best_min;
      if (!moved) break;
    }
    fit.scale[b] = static_cast<int>(scale);
    fit.min[b] = static_cast<int>(min);
  }

  const Normalised& in_;
  float clip_step_;
};

template <typename Levels>
void codes_of(const Settled& at, uint8_t* codes) {
  for (int j = 0; j < kTile; j += kLanes) {
    alignas(64) float values[kLanes];
    store(Levels::code(load(at.level + j)), values);
    for (int c = 0; c < kLanes; ++c) codes[j + c] = static_cast<uint8_t>(values[c]);
  }
}

// A tile that no scale can reach stays zero.
inline void give_up(const FeedbackTile& tile, float* errors) { std::copy_n(tile.x, tile.n, errors); }

template <typename Search, typename Block>
void encode_affine(const FeedbackTile& tile, float clip_step, Effort effort, std::byte* out, float* errors) {
  const Normalised in(tile, 0, kTile);
  Block block{};
  if (in.vanishes) {
    give_up(tile, errors);
  } else {
    const Block start = load_le<Block>(tile.start);
    const auto fit = Search(in, clip_step).search(f16_to_f32(start.d) / in.unit, f16_to_f32(start.dmin) / in.unit, effort);
    uint8_t codes[kTile];
    codes_of<typename Search::Levels>(fit.at, codes);
    pack_block(stored_scale(fit.d, in.unit), stored_scale(fit.dmin, in.unit), fit.scale, fit.min, codes, block);
    store_errors(in, fit.at, errors);
  }
  store_le(out, block);
}

void encode_tile_Q2_K(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_affine<AffineFeedback<16, 3, 15>, BlockQ2_K>(tile, 0.2f, effort, out, errors);
}

void encode_tile_Q4_K(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_affine<AffineFeedback<8, 15, 63>, BlockQ4_K>(tile, 0.08f, effort, out, errors);
}

void encode_tile_Q5_K(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_affine<AffineFeedback<8, 31, 63>, BlockQ5_K>(tile, 0.06f, effort, out, errors);
}

// y = (d l) level
template <typename LevelSet, int kSubBlocks, int kLowScale, int kHighScale>
class ScaledFeedback {
 public:
  static constexpr int kSize = kTile / kSubBlocks;
  static constexpr int kWindow = 8;  // values of l tried in each orientation
  using Levels = LevelSet;

  struct Fit {
    explicit Fit(const Normalised& in) : at(in) {}
    Settled at;
    float d = 0.0f;
    int l[kSubBlocks] = {};
  };

  ScaledFeedback(const Normalised& in, const Ladder& ladder) : in_(in), ladder_(ladder) {}

  // d: where to start.
  Fit search(float d, Effort effort) const {
    Fit best = pass(d, nullptr);
    for (int round = 0; round < by_effort(effort, 1, 3, 8); ++round) {
      alignas(64) float a[kTile];
      for (int j = 0; j < kTile; ++j) a[j] = static_cast<float>(best.l[j / kSize]) * best.at.level[j];
      const Refit refit = refit_scales(in_, best.at, a, nullptr);
      if (!refit.found) break;
      const Fit again = pass(to_f16(refit.d, in_.unit), &best);
      if (!(again.at.cost < best.at.cost)) break;
      best = again;
    }
    return best;
  }

 private:
  Fit pass(float d, const Fit* known) const {
    Fit fit(in_);
    fit.d = d;
    for (int b = 0; b < kSubBlocks; ++b) {
      fit.l[b] = choose_scale(b, fit, known != nullptr ? &known->l[b] : nullptr);
      settle<Levels>(in_, fit.at, b * kSize, kSize, d * static_cast<float>(fit.l[b]), 0.0f);
    }
    return fit;
  }

  static float nearest_integer(float l) {
    return std::nearbyint(std::min(std::max(l, static_cast<float>(kLowScale)), static_cast<float>(kHighScale)));
  }

  // 8 values of l around the optimum of either orientation, or 16 around the one known.
  int choose_scale(int b, const Fit& fit, const int* known) const {
    alignas(64) float candidates[kLanes];
    const float* aim = fit.at.aim + b * kSize;
    const float* w = in_.w + b * kSize;
    const float inverse = fit.d != 0.0f ? 1.0f / fit.d : 0.0f;
    const float outlier = extreme(aim, w, kSize);
    const auto keep = [](const Lanes& scale) { return scale; };
    for (int orientation = 0; orientation < 2; ++orientation) {
      const float outermost = outlier / (orientation == 0 ? Levels::kLowest : Levels::kHighest);
      const float own = nearest_integer(climb<Levels>(aim, w, kSize, outermost, ladder_, keep).scale * inverse);
      const float away = own < 0.0f ? -1.0f : 1.0f;
      for (int k = 0; k < kWindow; ++k) candidates[orientation * kWindow + k] = own + away * static_cast<float>(k - 4);
    }
    if (known != nullptr) candidates[0] = static_cast<float>(*known);
    const Lanes l = clamp(load(candidates), kLowScale, kHighScale);
    const int found = minimum(feedback_costs<Levels>(in_, fit.at, b * kSize, kSize, splat(fit.d) * l, splat(0.0f))).lane;
    return static_cast<int>(lane(l, found));
  }

  const Normalised& in_;
  Ladder ladder_;
};

template <typename Search, typename Block>
void encode_scaled(const FeedbackTile& tile, const Ladder& ladder, Effort effort, std::byte* out, float* errors) {
  const Normalised in(tile, 0, kTile);
  Block block{};
  if (in.vanishes) {
    give_up(tile, errors);
  } else {
    const auto fit = Search(in, ladder).search(f16_to_f32(load_le<Block>(tile.start).d) / in.unit, effort);
    uint8_t codes[kTile];
    codes_of<typename Search::Levels>(fit.at, codes);
    pack_block(stored_scale(fit.d, in.unit), fit.l, codes, block);
    store_errors(in, fit.at, errors);
  }
  store_le(out, block);
}

void encode_tile_Q3_K(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<ScaledFeedback<UniformLevels<-4, 3>, 16, -32, 31>, BlockQ3_K>(tile, {0.5f, 0.04f, 16}, effort, out, errors);
}

void encode_tile_Q6_K(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<ScaledFeedback<UniformLevels<-32, 31>, 16, -128, 127>, BlockQ6_K>(tile, {0.85f, 0.0125f, 16}, effort, out, errors);
}

void encode_tile_IQ4_XS(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) {
  encode_scaled<ScaledFeedback<Iq4nlLevels, 8, -32, 31>, BlockIQ4_XS>(tile, {0.6f, 0.035f, 16}, effort, out, errors);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_TILE_ENCODER(Q2_K)
QUERN_DISPATCH_TILE_ENCODER(Q3_K)
QUERN_DISPATCH_TILE_ENCODER(Q4_K)
QUERN_DISPATCH_TILE_ENCODER(Q5_K)
QUERN_DISPATCH_TILE_ENCODER(Q6_K)
QUERN_DISPATCH_TILE_ENCODER(IQ4_XS)
}  // namespace quern
#endif
