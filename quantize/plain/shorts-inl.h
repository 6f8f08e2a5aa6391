// Pairs of 16-bit integers, one pair in each lane of a part. Compiled once per CPU target; Highway's target of one lane has no room for a
// pair in a vector, so that there a pair is a structure.

#if defined(QUERN_QUANTIZE_SHORTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_SHORTS_INL_H_
#undef QUERN_QUANTIZE_SHORTS_INL_H_
#else
#define QUERN_QUANTIZE_SHORTS_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "quantize/plain/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

inline constexpr float kMostShort = 32767.0f;

#if HWY_TARGET == HWY_SCALAR

struct ShortPart {
  int16_t half[2];
};

template <typename F>
HWY_INLINE ShortPart map_halves(F f) {
  return {{static_cast<int16_t>(f(0)), static_cast<int16_t>(f(1))}};
}

HWY_INLINE ShortPart every_short(int value) {
  return map_halves([&](int) { return value; });
}
HWY_INLINE ShortPart pair_up(IntPart even, IntPart odd) { return {{static_cast<int16_t>(even.raw), static_cast<int16_t>(odd.raw)}}; }
HWY_INLINE ShortPart every_pair(int32_t pair) { return {{static_cast<int16_t>(pair), static_cast<int16_t>(pair >> 16)}}; }

HWY_INLINE ShortPart operator+(ShortPart a, ShortPart b) {
  return map_halves([&](int k) { return a.half[k] + b.half[k]; });
}
HWY_INLINE ShortPart operator-(ShortPart a, ShortPart b) {
  return map_halves([&](int k) { return a.half[k] - b.half[k]; });
}
HWY_INLINE ShortPart operator&(ShortPart a, ShortPart b) {
  return map_halves([&](int k) { return a.half[k] & b.half[k]; });
}
HWY_INLINE ShortPart operator|(ShortPart a, ShortPart b) {
  return map_halves([&](int k) { return a.half[k] | b.half[k]; });
}
HWY_INLINE ShortPart operator*(ShortPart a, ShortPart b) {
  return map_halves([&](int k) { return a.half[k] * b.half[k]; });
}
HWY_INLINE IntPart lower_halves(ShortPart a) { return IntPart(a.half[0]); }
HWY_INLINE IntPart upper_halves(ShortPart a) { return IntPart(a.half[1]); }
HWY_INLINE ShortPart magnitude(ShortPart a) {
  return map_halves([&](int k) { return std::abs(a.half[k]); });
}
HWY_INLINE ShortPart saturated_unsigned_sum(ShortPart a, ShortPart b) {
  return map_halves([&](int k) { return std::min<int>(static_cast<uint16_t>(a.half[k]) + static_cast<uint16_t>(b.half[k]), UINT16_MAX); });
}
HWY_INLINE ShortPart unsigned_min(ShortPart a, ShortPart b) {
  return map_halves([&](int k) { return std::min(static_cast<uint16_t>(a.half[k]), static_cast<uint16_t>(b.half[k])); });
}
HWY_INLINE ShortPart select_equal(ShortPart a, ShortPart b, ShortPart yes, ShortPart no) {
  return map_halves([&](int k) { return a.half[k] == b.half[k] ? yes.half[k] : no.half[k]; });
}
HWY_INLINE ShortPart clamp(ShortPart a, int lo, int hi) {
  return map_halves([&](int k) { return std::clamp<int>(a.half[k], lo, hi); });
}
template <int kBits>
HWY_INLINE ShortPart shift_left(ShortPart a) {
  return map_halves([&](int k) { return a.half[k] << kBits; });
}
template <int kBits>
HWY_INLINE ShortPart shift_right(ShortPart a) {
  return map_halves([&](int k) { return a.half[k] >> kBits; });
}
HWY_INLINE ShortPart select_greater(ShortPart a, ShortPart b, ShortPart yes, ShortPart no) {
  return map_halves([&](int k) { return a.half[k] > b.half[k] ? yes.half[k] : no.half[k]; });
}
HWY_INLINE ShortPart multiply_fixed(ShortPart a, ShortPart b) {
  return map_halves([&](int k) { return (a.half[k] * b.half[k] + 0x4000) >> 15; });
}
HWY_INLINE IntPart add_products_of_pairs(IntPart sum, ShortPart a, ShortPart b) {
  return IntPart(sum.raw + a.half[0] * b.half[0] + a.half[1] * b.half[1]);
}
HWY_INLINE ShortPart look_up_32(const uint8_t* table, ShortPart index) {
  return map_halves([&](int k) { return table[index.half[k]]; });
}

#else

using ShortPartTag = hn::Repartition<int16_t, PartTag>;
using ShortPart = hn::Vec<ShortPartTag>;  // has + - * & |

HWY_INLINE ShortPart every_short(int value) { return hn::Set(ShortPartTag(), static_cast<int16_t>(value)); }

// even in the lower half of each lane, odd in the upper one; of either the lower 16 bits.
HWY_INLINE ShortPart pair_up(IntPart even, IntPart odd) {
  return hn::BitCast(ShortPartTag(), hn::Or(hn::And(even, hn::Set(IntPartTag(), 0xFFFF)), hn::ShiftLeft<16>(odd)));
}

// The numbers in the lower and in the upper halves of the lanes, back again.
HWY_INLINE IntPart lower_halves(ShortPart a) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(hn::BitCast(IntPartTag(), a))); }
HWY_INLINE IntPart upper_halves(ShortPart a) { return hn::ShiftRight<16>(hn::BitCast(IntPartTag(), a)); }

// The lower and the upper half of one number in all lanes.
HWY_INLINE ShortPart every_pair(int32_t pair) { return hn::BitCast(ShortPartTag(), hn::Set(IntPartTag(), pair)); }
HWY_INLINE ShortPart clamp(ShortPart a, int lo, int hi) { return hn::Min(hn::Max(a, every_short(lo)), every_short(hi)); }
template <int kBits>
HWY_INLINE ShortPart shift_left(ShortPart a) {
  return hn::ShiftLeft<kBits>(a);
}
template <int kBits>
HWY_INLINE ShortPart shift_right(ShortPart a) {
  return hn::ShiftRight<kBits>(a);
}
HWY_INLINE ShortPart select_greater(ShortPart a, ShortPart b, ShortPart yes, ShortPart no) { return hn::IfThenElse(hn::Gt(a, b), yes, no); }
HWY_INLINE ShortPart select_equal(ShortPart a, ShortPart b, ShortPart yes, ShortPart no) { return hn::IfThenElse(hn::Eq(a, b), yes, no); }
HWY_INLINE ShortPart magnitude(ShortPart a) { return hn::Abs(a); }

// Of numbers from 0 to 65535.
using UnsignedShortTag = hn::RebindToUnsigned<ShortPartTag>;
HWY_INLINE ShortPart saturated_unsigned_sum(ShortPart a, ShortPart b) {
  const UnsignedShortTag tag;
  return hn::BitCast(ShortPartTag(), hn::SaturatedAdd(hn::BitCast(tag, a), hn::BitCast(tag, b)));
}
HWY_INLINE ShortPart unsigned_min(ShortPart a, ShortPart b) {
  const UnsignedShortTag tag;
  return hn::BitCast(ShortPartTag(), hn::Min(hn::BitCast(tag, a), hn::BitCast(tag, b)));
}

// a b / 2^15, rounded; not for -2^15 times itself.
HWY_INLINE ShortPart multiply_fixed(ShortPart a, ShortPart b) { return hn::MulFixedPoint15(a, b); }

// sum + a0 b0 + a1 b1 for each pair.
HWY_INLINE IntPart add_products_of_pairs(IntPart sum, ShortPart a, ShortPart b) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128  // where this is one instruction, and adds up neighbours
  IntPart unused = hn::Zero(IntPartTag());
  return hn::ReorderWidenMulAccumulate(IntPartTag(), a, b, sum, unused);
#else
  return hn::Add(sum, hn::Add(hn::Mul(lower_halves(a), lower_halves(b)), hn::Mul(upper_halves(a), upper_halves(b))));
#endif
}

#if QUERN_LOOKS_UP
// table[index % kCount], which is one instruction; the table is aligned to 64 bytes.
template <size_t kCount>
HWY_INLINE ShortPart look_up_shorts(const int16_t (&table)[kCount], ShortPart index) {
  static_assert(kCount == 32 || kCount == 64);
  const ShortPart lower = hn::Load(ShortPartTag(), table);
  if constexpr (kCount == 32) return ShortPart{_mm512_permutexvar_epi16(index.raw, lower.raw)};
  return ShortPart{_mm512_permutex2var_epi16(lower.raw, index.raw, hn::Load(ShortPartTag(), table + kCount - 32).raw)};
}
#endif

// table[index] for indices below 32; the table is aligned to 16 bytes.
HWY_INLINE ShortPart look_up_32(const uint8_t* table, ShortPart index) {
  const ShortPartTag tag;
  const hn::Repartition<uint8_t, ShortPartTag> bytes;
  const auto place = hn::BitCast(bytes, hn::Or(hn::And(index, every_short(15)), every_short(-0x8000)));  // 0x80: zero in the upper byte
  const auto of = [&](const uint8_t* half) { return hn::BitCast(tag, hn::TableLookupBytesOr0(hn::LoadDup128(bytes, half), place)); };
  return select_greater(index, every_short(15), of(table + 16), of(table));
}

#endif

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_SHORTS_INL_H_
