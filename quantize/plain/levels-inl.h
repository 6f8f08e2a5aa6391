// The sets of values that codes of symmetric types stand for: y = scale * level. Compiled once per CPU target.

#if defined(QUERN_QUANTIZE_LEVELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LEVELS_INL_H_
#undef QUERN_QUANTIZE_LEVELS_INL_H_
#else
#define QUERN_QUANTIZE_LEVELS_INL_H_
#endif

#include <algorithm>
#include <bit>

#include "formats/types/codebooks.h"
#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/shorts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Each set has kLowest and kHighest, nearest(v) (the level nearest to v) and code(level) (its code as a float). Those with kFraction also
// have rest(v): v less the nearest level, for v with kFraction bits after the point; the rest has kRestBits of them and a magnitude of at
// most kMostRest.

// The nearest of the integers kLow..kHigh, for each of the half steps that 16-bit numbers with kFraction bits after the point have above
// them: those from zero on first, then the negative ones.
template <int kLow, int kHigh, int kFraction>
struct HalfSteps {
  static constexpr int kCount = 1 << (17 - kFraction);
  alignas(64) int16_t nearest[kCount] = {};

  constexpr HalfSteps() {
    for (int step = -kCount / 2; step < kCount / 2; ++step) {
      nearest[(step + kCount) % kCount] =
          static_cast<int16_t>(std::clamp((step + kCount + 1) / 2 - kCount / 2, kLow, kHigh) * (1 << kFraction));
    }
  }
};

template <int kLow, int kHigh, int kFraction>
inline constexpr HalfSteps<kLow, kHigh, kFraction> kHalfSteps;

// v less the nearest of the integers kLow..kHigh, all with kFraction bits after the point.
template <int kLow, int kHigh, int kFraction>
HWY_INLINE ShortPart rest_of(ShortPart v) {
  constexpr int kOne = 1 << kFraction;
#if QUERN_LOOKS_UP
  using Steps = HalfSteps<kLow, kHigh, kFraction>;
  if constexpr (Steps::kCount <= 64) return v - look_up_shorts(kHalfSteps<kLow, kHigh, kFraction>.nearest, shift_right<kFraction - 1>(v));
#endif
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
// each. What is not above it is nearest to `lower`. No two levels are in one bin either: `code` is that of the one in it.
struct Iq4nlBins {
  static constexpr int kCount = 2 * kLanes;
  static constexpr float kWidth = 8.0f;
  alignas(64) float middle[kCount] = {};
  alignas(64) float lower[kCount] = {};
  alignas(64) float upper[kCount] = {};
  alignas(64) float code[kCount] = {};

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
    for (size_t i = 0; i < kIq4nl.size(); ++i) code[static_cast<size_t>(kIq4nl[i] + 128) / 8] = static_cast<float>(i);
  }
};

inline constexpr Iq4nlBins kIq4nlBins;

// The same as bytes, 128 above the levels, and as 16-bit numbers with kFraction bits after the point, bin -16 after bin 15.
struct Iq4nlFixed {
  static constexpr int kFraction = 6;
  alignas(16) uint8_t lower_byte[Iq4nlBins::kCount] = {};
  alignas(16) uint8_t upper_byte[Iq4nlBins::kCount] = {};
  alignas(64) int16_t middle[Iq4nlBins::kCount] = {};
  alignas(64) int16_t lower[Iq4nlBins::kCount] = {};
  alignas(64) int16_t upper[Iq4nlBins::kCount] = {};

  constexpr Iq4nlFixed() {
    for (int bin = 0; bin < Iq4nlBins::kCount; ++bin) {
      const int at = (bin + Iq4nlBins::kCount / 2) % Iq4nlBins::kCount;
      lower_byte[bin] = static_cast<uint8_t>(kIq4nlBins.lower[bin] + 128.0f);
      upper_byte[bin] = static_cast<uint8_t>(kIq4nlBins.upper[bin] + 128.0f);
      lower[at] = static_cast<int16_t>(kIq4nlBins.lower[bin] * (1 << kFraction));
      upper[at] = static_cast<int16_t>(kIq4nlBins.upper[bin] * (1 << kFraction));
      middle[at] = static_cast<int16_t>((lower[at] + upper[at]) / 2);
    }
  }
};

inline constexpr Iq4nlFixed kIq4nlFixed;

// The table of IQ4_NL and IQ4_XS.
struct Iq4nlLevels {
  static constexpr float kLowest = kIq4nl.front();
  static constexpr float kHighest = kIq4nl.back();
  static HWY_INLINE Lanes nearest(const Lanes& v) {
#if QUERN_LOOKS_UP
    const IntPart bin = bin_of(v);
    const auto above = hn::Lt(look_up_floats(kIq4nlBins.middle, bin), v.part[0]);
    return {hn::IfThenElse(above, look_up_floats(kIq4nlBins.upper, bin), look_up_floats(kIq4nlBins.lower, bin))};
#else
    Lanes level = splat(kLowest);
    for (size_t i = 1; i < kIq4nl.size(); ++i) level = select_less(splat(Iq4nlBins::middle_below(i)), v, splat(kIq4nl[i]), level);
    return level;
#endif
  }

  static constexpr int kFraction = Iq4nlFixed::kFraction;
  static constexpr int kRestBits = kFraction;
  static constexpr float kMostRest = 32768.0f - kHighest * (1 << kFraction);
  static HWY_INLINE ShortPart rest(ShortPart v) {
    const ShortPart bin = clamp(shift_right<kFraction + 3>(v), -kLanes, kLanes - 1);
#if QUERN_LOOKS_UP
    const ShortPart lower = look_up_shorts(kIq4nlFixed.lower, bin);
    const ShortPart upper = look_up_shorts(kIq4nlFixed.upper, bin);
    const ShortPart middle = look_up_shorts(kIq4nlFixed.middle, bin);
    return v - select_greater(v, middle, upper, lower);
#else
    const ShortPart lower = look_up_32(kIq4nlFixed.lower_byte, bin + every_short(kLanes));
    const ShortPart upper = look_up_32(kIq4nlFixed.upper_byte, bin + every_short(kLanes));
    // Levels are 128 less than the bytes, and the middle between two has half their sum.
    const ShortPart middle = shift_left<kFraction - 1>(lower + upper) - every_short(128 << kFraction);
    return v - shift_left<kFraction>(select_greater(v, middle, upper, lower) - every_short(128));
#endif
  }

  static HWY_INLINE Lanes code(const Lanes& level) {
#if QUERN_LOOKS_UP
    return {look_up_floats(kIq4nlBins.code, bin_of(level))};
#else
    Lanes code = splat(0.0f);
    for (size_t i = 1; i < kIq4nl.size(); ++i) code += select_less(splat(kIq4nl[i - 1]), level, splat(1.0f), splat(0.0f));
    return code;
#endif
  }

 private:
#if QUERN_LOOKS_UP
  static HWY_INLINE IntPart bin_of(const Lanes& v) {
    const Lanes bin = clamp(v * splat(1.0f / Iq4nlBins::kWidth) + splat(kLanes), 0.0f, Iq4nlBins::kCount - 1);
    return hn::ConvertTo(IntPartTag(), bin.part[0]);
  }
#endif
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LEVELS_INL_H_
