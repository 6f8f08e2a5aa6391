// Vectors of 16 candidates, compiled once per CPU target (no include guard in the usual form: see hwy/foreach_target.h).
//
// A search tries many scales for the same few weights, so the lanes of a vector are candidates, not weights: each lane adds up its
// own error over the weights in their order. No sum depends on the width of the CPU's vectors and nothing is reduced across lanes,
// so SSE2, AVX2, AVX-512 and NEON make the same bytes. Multiplications and additions stay apart (-ffp-contract=off).

#if defined(QUERN_QUANTIZE_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LANES_INL_H_
#undef QUERN_QUANTIZE_LANES_INL_H_
#else
#define QUERN_QUANTIZE_LANES_INL_H_
#endif

#include "hwy/highway.h"

// Whether one instruction looks up all lanes of a vector in a table of two.
#define QUERN_LOOKS_UP (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3)

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int kLanes = 16;
using PartTag = hn::CappedTag<float, kLanes>;
using Part = hn::Vec<PartTag>;
inline constexpr int kParts = kLanes / static_cast<int>(hn::MaxLanes(PartTag()));
inline constexpr int kPartLanes = kLanes / kParts;
using IntPartTag = hn::RebindToSigned<PartTag>;
using IntPart = hn::Vec<IntPartTag>;

struct Lanes {
  Part part[kParts];
};

// Applies a function of parts lane by lane.
template <typename F, typename... Rest>
HWY_INLINE Lanes map(F f, const Lanes& first, const Rest&... rest) {
  Lanes out;
  for (int p = 0; p < kParts; ++p) out.part[p] = f(first.part[p], rest.part[p]...);
  return out;
}

HWY_INLINE Lanes splat(float value) {
  Lanes out;
  for (int p = 0; p < kParts; ++p) out.part[p] = hn::Set(PartTag(), value);
  return out;
}

HWY_INLINE Lanes load(const float* from) {
  Lanes out;
  for (int p = 0; p < kParts; ++p) out.part[p] = hn::LoadU(PartTag(), from + p * (kLanes / kParts));
  return out;
}

HWY_INLINE void store(const Lanes& lanes, float* to) {
  for (int p = 0; p < kParts; ++p) hn::StoreU(lanes.part[p], PartTag(), to + p * (kLanes / kParts));
}

HWY_INLINE Lanes operator+(const Lanes& a, const Lanes& b) {
  return map([](Part x, Part y) { return hn::Add(x, y); }, a, b);
}
HWY_INLINE Lanes operator-(const Lanes& a, const Lanes& b) {
  return map([](Part x, Part y) { return hn::Sub(x, y); }, a, b);
}
HWY_INLINE Lanes operator*(const Lanes& a, const Lanes& b) {
  return map([](Part x, Part y) { return hn::Mul(x, y); }, a, b);
}
HWY_INLINE Lanes operator/(const Lanes& a, const Lanes& b) {
  return map([](Part x, Part y) { return hn::Div(x, y); }, a, b);
}
HWY_INLINE Lanes& operator+=(Lanes& a, const Lanes& b) { return a = a + b; }
HWY_INLINE Lanes min(const Lanes& a, const Lanes& b) {
  return map([](Part x, Part y) { return hn::Min(x, y); }, a, b);
}
HWY_INLINE Lanes max(const Lanes& a, const Lanes& b) {
  return map([](Part x, Part y) { return hn::Max(x, y); }, a, b);
}
HWY_INLINE Lanes abs(const Lanes& a) {
  return map([](Part x) { return hn::Abs(x); }, a);
}
HWY_INLINE Lanes square_root(const Lanes& a) {
  return map([](Part x) { return hn::Sqrt(x); }, a);
}
HWY_INLINE Lanes copy_sign(const Lanes& magnitude, const Lanes& sign) {
  return map([](Part x, Part y) { return hn::CopySign(x, y); }, magnitude, sign);
}

// a < b ? yes : no
HWY_INLINE Lanes select_less(const Lanes& a, const Lanes& b, const Lanes& yes, const Lanes& no) {
  return map([](Part x, Part y, Part s, Part t) { return hn::IfThenElse(hn::Lt(x, y), s, t); }, a, b, yes, no);
}

// Rounds half to even; magnitudes below 2^22. The addition leaves no room for fraction bits. Cheaper than SSE2's emulated rounding.
HWY_INLINE Lanes round_to_int(const Lanes& a) {
  const Lanes magic = splat(0x1.8p23f);
  return (a + magic) - magic;
}

// The nearest integer, for the same magnitudes: the sum has it in the lowest bits.
HWY_INLINE IntPart to_int(Part a) {
  const Part magic = hn::Set(PartTag(), 0x1.8p23f);
  return hn::Sub(hn::BitCast(IntPartTag(), hn::Add(a, magic)), hn::BitCast(IntPartTag(), magic));
}

#if QUERN_LOOKS_UP
// table[index % 32], which is one instruction; the table is aligned to 64 bytes.
HWY_INLINE Part look_up_floats(const float* table, IntPart index) {
  const PartTag tag;
  return Part{_mm512_permutex2var_ps(hn::Load(tag, table).raw, index.raw, hn::Load(tag, table + kLanes).raw)};
}
#endif

// Integers from 0 to 255.
HWY_INLINE void store_bytes(const Lanes& lanes, uint8_t* to) {
  const hn::Rebind<uint8_t, PartTag> tag;
  for (int p = 0; p < kParts; ++p) hn::StoreU(hn::DemoteTo(tag, to_int(lanes.part[p])), tag, to + p * kPartLanes);
}

HWY_INLINE Lanes clamp(const Lanes& a, float lo, float hi) { return min(max(a, splat(lo)), splat(hi)); }

// 1 / a, and 0 where a is 0.
HWY_INLINE Lanes reciprocal_or_zero(const Lanes& a) {
  const Lanes zero = splat(0.0f);
  return select_less(zero, abs(a), splat(1.0f) / a, zero);
}

// A scale as loops over errors use it: sum w (x - scale q)^2 = squared * sum w (x * inverse - q)^2. Magnitudes below 2^-30, zero
// among them, count as 2^-30: beside weights of 1 that is as good as zero, and nothing overflows.
struct Step {
  Lanes inverse;
  Lanes squared;
};

HWY_INLINE Step step_of(const Lanes& scale) {
  const Lanes least = splat(0x1p-30f);
  const Lanes usable = select_less(abs(scale), least, least, scale);
  return {splat(1.0f) / usable, usable * usable};
}

// Nearby values that are binary16 in a file where a normalised 1 is stored as `unit`: multiples of 2^-24 with 11 significant bits
// within +-65504. Not always the nearest one (a tie may go either way), always exactly representable.
HWY_INLINE Lanes round_to_f16(const Lanes& a, const Lanes& unit) {
  const Lanes to_step = splat(0.75f) / unit;  // adding 3 * 2^22 steps of 2^-24
  const Lanes stepped = (a + to_step) - to_step;
  const Lanes spread = stepped * splat(8193.0f);  // 2^13 + 1: the sum below keeps the upper 11 of 24 bits
  const Lanes rounded = spread - (spread - stepped);
  const Lanes largest = splat(65504.0f) / unit;
  return min(max(rounded, splat(0.0f) - largest), largest);
}

HWY_INLINE Lanes round_to_f16(const Lanes& a, float unit) { return round_to_f16(a, splat(unit)); }

// Lanes 0 to 7 of one, 8 to 15 of the other.
HWY_INLINE Lanes merge_halves(const Lanes& lower, const Lanes& upper) {
  Lanes out;
  if constexpr (kParts == 1) {
    const PartTag tag;
    out.part[0] = hn::IfThenElse(hn::FirstN(tag, kLanes / 2), lower.part[0], upper.part[0]);
  } else {
    for (int p = 0; p < kParts; ++p) out.part[p] = p < kParts / 2 ? lower.part[p] : upper.part[p];
  }
  return out;
}

HWY_INLINE Lanes halves(float lower, float upper) { return merge_halves(splat(lower), splat(upper)); }

struct BestLane {
  int lane;
  float value;
};

// The first lane with the least value; lane 0 if none compares (all NaN).
HWY_INLINE BestLane minimum(const Lanes& lanes) {
  const PartTag tag;
  Part least = lanes.part[0];
  for (int p = 1; p < kParts; ++p) least = hn::Min(least, lanes.part[p]);
  const Part everywhere = hn::MinOfLanes(tag, least);
  for (int p = 0; p < kParts; ++p) {
    const auto found = hn::FindFirstTrue(tag, hn::Eq(lanes.part[p], everywhere));
    if (found >= 0) return {p * (kLanes / kParts) + static_cast<int>(found), hn::GetLane(everywhere)};
  }
  return {0, hn::GetLane(lanes.part[0])};
}

// In a fixed order: halves are added to each other until one lane is left.
HWY_INLINE float sum_of(const Lanes& lanes) {
  alignas(64) float values[kLanes];
  store(lanes, values);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int c = 0; c < half; ++c) values[c] += values[c + half];
  }
  return values[0];
}

HWY_INLINE float lane(const Lanes& lanes, int c) {
  alignas(64) float values[kLanes];
  store(lanes, values);
  return values[c];
}

// The same rounding of one value.
HWY_INLINE float to_f16(double value, float unit) { return lane(round_to_f16(splat(static_cast<float>(value)), unit), 0); }

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LANES_INL_H_
