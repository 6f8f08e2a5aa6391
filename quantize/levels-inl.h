// The sets of values that codes of symmetric types stand for: y = scale * level. Compiled once per CPU target.

#if defined(QUERN_QUANTIZE_LEVELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LEVELS_INL_H_
#undef QUERN_QUANTIZE_LEVELS_INL_H_
#else
#define QUERN_QUANTIZE_LEVELS_INL_H_
#endif

#include "formats/codebooks.h"
#include "quantize/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Each set has kLowest and kHighest, nearest(v) (the level nearest to v) and code(level) (its code as a float).

template <int kLow, int kHigh>
struct UniformLevels {
  static constexpr float kLowest = kLow;
  static constexpr float kHighest = kHigh;
  static HWY_INLINE Lanes nearest(const Lanes& v) { return round_to_int(clamp(v, kLowest, kHighest)); }
  static HWY_INLINE Lanes code(const Lanes& level) { return level - splat(kLowest); }
};

// Doubled e2m1 values: steps of 1 up to 4, of 2 up to 8, of 4 up to 12.
struct Fp4Levels {
  static constexpr float kLowest = -12.0f;
  static constexpr float kHighest = 12.0f;
  static HWY_INLINE Lanes nearest(const Lanes& v) {
    const Lanes a = min(abs(v), splat(12.0f));
    const Lanes by_1 = round_to_int(a);
    const Lanes by_2 = round_to_int(a * splat(0.5f)) * splat(2.0f);
    const Lanes by_4 = round_to_int(a * splat(0.25f)) * splat(4.0f);
    return copy_sign(select_less(splat(4.0f), a, select_less(splat(8.0f), a, by_4, by_2), by_1), v);
  }
  // 0 1 2 3 4 6 8 12 are codes 0..7; 8 more for negative values.
  static HWY_INLINE Lanes code(const Lanes& level) {
    const Lanes a = abs(level);
    const Lanes upper = select_less(splat(8.0f), a, splat(7.0f), a * splat(0.5f) + splat(2.0f));
    const Lanes magnitude = select_less(splat(4.0f), a, upper, a);
    return magnitude + select_less(level, splat(0.0f), splat(8.0f), splat(0.0f));
  }
};

// The table of IQ4_NL and IQ4_XS.
struct Iq4nlLevels {
  static constexpr float kLowest = kIq4nl.front();
  static constexpr float kHighest = kIq4nl.back();
  static HWY_INLINE Lanes nearest(const Lanes& v) {
    Lanes level = splat(kLowest);
    for (size_t i = 1; i < kIq4nl.size(); ++i) {
      const Lanes middle = splat(0.5f * static_cast<float>(kIq4nl[i - 1] + kIq4nl[i]));
      level = select_less(middle, v, splat(kIq4nl[i]), level);
    }
    return level;
  }
  static HWY_INLINE Lanes code(const Lanes& level) {
    Lanes code = splat(0.0f);
    for (size_t i = 1; i < kIq4nl.size(); ++i) code += select_less(splat(kIq4nl[i - 1]), level, splat(1.0f), splat(0.0f));
    return code;
  }
};

// Codes of n weights (a multiple of 16) for one scale.
template <typename Levels>
void codes_for_scale(const float* x, int n, float scale, uint8_t* codes) {
  const Lanes inverse = reciprocal_or_zero(splat(scale));
  for (int i = 0; i < n; i += kLanes) {
    alignas(64) float values[kLanes];
    store(Levels::code(Levels::nearest(load(x + i) * inverse)), values);
    for (int j = 0; j < kLanes; ++j) codes[i + j] = static_cast<uint8_t>(values[j]);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LEVELS_INL_H_
