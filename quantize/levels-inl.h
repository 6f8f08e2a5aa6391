// The sets of values that codes of symmetric types stand for: y = scale * level. Compiled once per CPU target.

#if defined(QUERN_QUANTIZE_LEVELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LEVELS_INL_H_
#undef QUERN_QUANTIZE_LEVELS_INL_H_
#else
#define QUERN_QUANTIZE_LEVELS_INL_H_
#endif

#include <bit>

#include "formats/codebooks.h"
#include "quantize/lanes-inl.h"
#include "quantize/shorts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Each set has kLowest and kHighest, nearest(v) (the level nearest to v) and code(level) (its code as a float). Those with kFraction also
// have rest(v): v less the nearest level, for v with kFraction bits after the point; the rest has kRestBits of them and a magnitude of at
// most kMostRest.

// v less the nearest of the integers kLow..kHigh, all with kFraction bits after the point.
template <int kLow, int kHigh, int kFraction>
HWY_INLINE ShortPart rest_of(ShortPart v) {
  constexpr int kOne = 1 << kFraction;
  return v - ((clamp(v, kLow * kOne, kHigh * kOne) + every_short(kOne / 2)) & every_short(-kOne));
}

template <int kLow, int kHigh>
struct UniformLevels {
  static constexpr float kLowest = kLow;
  static constexpr float kHighest = kHigh;
  static HWY_INLINE Lanes nearest(const Lanes& v) { return round_to_int(clamp(v, kLowest, kHighest)); }
  static HWY_INLINE Lanes code(const Lanes& level) { return level - splat(kLowest); }

  // Values up to twice the outermost level, or hardly beyond it where levels are many.
  static constexpr bool kReachesBeyond = kHigh < 127;
  static constexpr int kFraction = kReachesBeyond ? 15 - std::bit_width(static_cast<unsigned>(-kLow)) : 8;
  static constexpr int kRestBits = kReachesBeyond ? kFraction : 16;
  static constexpr float kMostRest = kReachesBeyond ? 32768.0f - static_cast<float>(kHigh * (1 << kFraction)) : 32768.0f;
  static HWY_INLINE ShortPart rest(ShortPart v) {
    if constexpr (kReachesBeyond) {
      return rest_of<kLow, kHigh, kFraction>(v);
    } else {
      return shift_left<16 - kFraction>(v);  // leaves what lies behind the point, as a signed number
    }
  }
};

// -1, 0, 1. Scales are far below the largest weight, so values reach to 16 times the outermost level.
struct TernaryLevels : UniformLevels<-1, 1> {
  static constexpr int kFraction = 11;
  static constexpr int kRestBits = kFraction;
  static constexpr float kMostRest = 32768.0f - (1 << kFraction);
  static HWY_INLINE ShortPart rest(ShortPart v) { return rest_of<-1, 1, kFraction>(v); }
};

// Doubled e2m1 values: steps of 1 up to 4, of 2 up to 8, of 4 up to 12.
struct Fp4Levels {
  static constexpr float kLowest = -12.0f;
  static constexpr float kHighest = 12.0f;
  static HWY_INLINE Lanes nearest(const Lanes& v) {
    const Lanes inside = clamp(v, kLowest, kHighest);
    const Lanes binade = map([](Part x) { return hn::And(x, hn::BitCast(PartTag(), hn::Set(IntPartTag(), 0x7F800000))); }, inside);
    // The sum has no bits for less than half a binade, nor for less than 1.
    const Lanes magic = max(binade, splat(2.0f)) * splat(0x1.8p22f);
    return (inside + magic) - magic;
  }
  // 0 1 2 3 4 6 8 12 are codes 0..7; 8 more for negative values.
  static HWY_INLINE Lanes code(const Lanes& level) {
    const Lanes a = abs(level);
    const Lanes upper = select_less(splat(8.0f), a, splat(7.0f), a * splat(0.5f) + splat(2.0f));
    const Lanes magnitude = select_less(splat(4.0f), a, upper, a);
    return magnitude + select_less(level, splat(0.0f), splat(8.0f), splat(0.0f));
  }
};

// The middles between neighbouring levels of IQ4_NL, where rounding goes from one to the other: bins of 8 from -128 on hold at most one
// each. What is not above it is nearest to `lower`.
struct Iq4nlBins {
  static constexpr int kCount = 2 * kLanes;
  static constexpr float kWidth = 8.0f;
  alignas(64) float middle[kCount] = {};
  alignas(64) float lower[kCount] = {};
  alignas(64) float upper[kCount] = {};

  // Half way between level i and the one below.
  static constexpr float middle_below(size_t i) { return 0.5f * static_cast<float>(kIq4nl[i - 1] + kIq4nl[i]); }

  constexpr Iq4nlBins() {
    for (int bin = 0; bin < kCount; ++bin) {
      const float end = static_cast<float>(bin + 1 - kCount / 2) * kWidth;
      size_t level = 0;  // of the end of the bin
      while (level + 1 < kIq4nl.size() && middle_below(level + 1) < end) ++level;
      const bool inside = level > 0 && middle_below(level) >= end - kWidth;
      middle[bin] = inside ? middle_below(level) : end + kWidth;
      lower[bin] = static_cast<float>(kIq4nl[inside ? level - 1 : level]);
      upper[bin] = static_cast<float>(kIq4nl[level]);
    }
  }
};

inline constexpr Iq4nlBins kIq4nlBins;

// The same as bytes, 128 above the levels.
struct Iq4nlBytes {
  alignas(16) uint8_t lower[Iq4nlBins::kCount];
  alignas(16) uint8_t upper[Iq4nlBins::kCount];

  constexpr Iq4nlBytes() : lower{}, upper{} {
    for (int bin = 0; bin < Iq4nlBins::kCount; ++bin) {
      lower[bin] = static_cast<uint8_t>(kIq4nlBins.lower[bin] + 128.0f);
      upper[bin] = static_cast<uint8_t>(kIq4nlBins.upper[bin] + 128.0f);
    }
  }
};

inline constexpr Iq4nlBytes kIq4nlBytes;

// The table of IQ4_NL and IQ4_XS.
struct Iq4nlLevels {
  static constexpr float kLowest = kIq4nl.front();
  static constexpr float kHighest = kIq4nl.back();
  static HWY_INLINE Lanes nearest(const Lanes& v) {
    if constexpr (kParts == 1) {
      const PartTag tag;
      const hn::RebindToSigned<PartTag> integers;
      const auto bin =
          hn::ConvertTo(integers, clamp(v * splat(1.0f / Iq4nlBins::kWidth) + splat(kLanes), 0.0f, Iq4nlBins::kCount - 1).part[0]);
      const auto index = hn::IndicesFromVec(tag, hn::And(bin, hn::Set(integers, kLanes - 1)));
      const auto in_upper_table = hn::RebindMask(tag, hn::Gt(bin, hn::Set(integers, kLanes - 1)));
      const auto look_up = [&](const float* table) {
        return hn::IfThenElse(in_upper_table, hn::TableLookupLanes(hn::Load(tag, table + kLanes), index),
                              hn::TableLookupLanes(hn::Load(tag, table), index));
      };
      const auto above = hn::Lt(look_up(kIq4nlBins.middle), v.part[0]);
      Lanes level;
      level.part[0] = hn::IfThenElse(above, look_up(kIq4nlBins.upper), look_up(kIq4nlBins.lower));
      return level;
    } else {
      Lanes level = splat(kLowest);
      for (size_t i = 1; i < kIq4nl.size(); ++i) level = select_less(splat(Iq4nlBins::middle_below(i)), v, splat(kIq4nl[i]), level);
      return level;
    }
  }

  static constexpr int kFraction = 6;
  static constexpr int kRestBits = kFraction;
  static constexpr float kMostRest = 32768.0f - kHighest * (1 << kFraction);
  static HWY_INLINE ShortPart rest(ShortPart v) {
    const ShortPart bin = clamp(shift_right<kFraction + 3>(v), -kLanes, kLanes - 1) + every_short(kLanes);
    const ShortPart lower = look_up_32(kIq4nlBytes.lower, bin);
    const ShortPart upper = look_up_32(kIq4nlBytes.upper, bin);
    // Levels are 128 less than the bytes, and the middle between two has half their sum.
    const ShortPart middle = shift_left<kFraction - 1>(lower + upper) - every_short(128 << kFraction);
    return v - shift_left<kFraction>(select_greater(v, middle, upper, lower) - every_short(128));
  }

  static HWY_INLINE Lanes code(const Lanes& level) {
    Lanes code = splat(0.0f);
    for (size_t i = 1; i < kIq4nl.size(); ++i) code += select_less(splat(kIq4nl[i - 1]), level, splat(1.0f), splat(0.0f));
    return code;
  }
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LEVELS_INL_H_
