// There are eight lanes of doubles however wide the CPU's vectors are: they take four, two or one of them. Element i goes to lane i mod 8,
// each lane adds in the order of the elements, and products are rounded before they are added, so every CPU gives the same bits. The
// elements after the last whole group of eight are filled up with zeros, whose terms are zero.

#include "formats/base/lane_sums.h"

#include <algorithm>
#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "formats/base/lane_sums_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kSumLanes = std::tuple_size_v<LaneSums>;
using Tag = hn::CappedTag<double, kSumLanes>;
using Narrow = hn::Rebind<float, Tag>;
using V = hn::Vec<Tag>;
constexpr size_t kLanes = hn::MaxLanes(Tag());
constexpr size_t kVectors = kSumLanes / kLanes;

// sums += term(vectors of each of the arrays) over groups of eight. The term of zeros must be zero.
template <typename Term, typename... Array>
HWY_INLINE void add_terms(size_t n, LaneSums& sums, Term term, const Array*... x) {
  const auto load = [](const float* from) HWY_ATTR { return hn::PromoteTo(Tag(), hn::LoadU(Narrow(), from)); };
  V lanes[kVectors];
  for (size_t v = 0; v < kVectors; ++v) lanes[v] = hn::LoadU(Tag(), sums.data() + v * kLanes);
  const size_t whole = n / kSumLanes * kSumLanes;
  for (size_t i = 0; i < whole; i += kSumLanes) {
    for (size_t v = 0; v < kVectors; ++v) lanes[v] = hn::Add(lanes[v], term(load(x + i + v * kLanes)...));
  }
  if (whole != n) {
    const auto padded = [&](const float* from) HWY_ATTR {
      std::array<float, kSumLanes> group{};
      std::copy(from + whole, from + n, group.begin());
      return group;
    };
    [&](const auto&... group) HWY_ATTR {
      for (size_t v = 0; v < kVectors; ++v) lanes[v] = hn::Add(lanes[v], term(load(group.data() + v * kLanes)...));
    }(padded(x)...);
  }
  for (size_t v = 0; v < kVectors; ++v) hn::StoreU(lanes[v], Tag(), sums.data() + v * kLanes);
}

void squares(const float* x, size_t n, LaneSums& sums) {
  add_terms(
      n, sums, [](V a) HWY_ATTR { return hn::Mul(a, a); }, x);
}

void squared_differences(const float* x, const float* y, size_t n, LaneSums& sums) {
  const auto term = [](V a, V b) HWY_ATTR {
    const V difference = hn::Sub(a, b);
    return hn::Mul(difference, difference);
  };
  add_terms(n, sums, term, x, y);
}

void weighted_products(const float* h, const float* x, const float* y, size_t n, LaneSums& sums) {
  add_terms(
      n, sums, [](V w, V a, V b) HWY_ATTR { return hn::Mul(hn::Mul(w, a), b); }, h, x, y);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {

HWY_EXPORT(squares);
HWY_EXPORT(squared_differences);
HWY_EXPORT(weighted_products);

double total(const LaneSums& sums) noexcept {
  double all = 0;
  for (const double lane : sums) all += lane;
  return all;
}

void add_squares(std::span<const float> x, LaneSums& sums) noexcept { HWY_DYNAMIC_DISPATCH(squares)(x.data(), x.size(), sums); }

void add_squared_differences(std::span<const float> x, std::span<const float> y, LaneSums& sums) noexcept {
  HWY_DYNAMIC_DISPATCH(squared_differences)(x.data(), y.data(), x.size(), sums);
}

void add_weighted_products(std::span<const float> h, std::span<const float> x, std::span<const float> y, LaneSums& sums) noexcept {
  HWY_DYNAMIC_DISPATCH(weighted_products)(h.data(), x.data(), y.data(), x.size(), sums);
}

}  // namespace quern
#endif
