#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/math/vector_math.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/math/vector_math_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kSumLanes = 8;
using Tag = hn::CappedTag<double, static_cast<size_t>(kSumLanes)>;
using Narrow = hn::Rebind<float, Tag>;
using V = hn::Vec<Tag>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(Tag()));
constexpr int kVectors = static_cast<int>(kSumLanes / kLanes);

HWY_INLINE V load(const float* x) { return hn::PromoteTo(Tag(), hn::LoadU(Narrow(), x)); }
HWY_INLINE void store(V v, float* x) { hn::StoreU(hn::DemoteTo(Narrow(), v), Narrow(), x); }

// hn::Exp makes zeros of NaN.
HWY_INLINE V exp(V x) { return hn::IfThenElse(hn::Eq(x, x), hn::Exp(Tag(), x), x); }

struct Sums {
  V lanes[kVectors];

  HWY_INLINE Sums() {
    for (V& v : lanes) v = hn::Zero(Tag());
  }
  HWY_INLINE double total() const {
    HWY_ALIGN double s[kSumLanes];
    for (int i = 0; i < kVectors; ++i) hn::StoreU(lanes[i], Tag(), s + i * kLanes);
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
};

// body(vector number in a group of eight elements, pointer) for all whole groups, then for a copy of the rest, filled up with `rest`
// and copied back.
template <typename Body>
HWY_INLINE void for_groups(float* x, int64_t n, float rest, Body body) {
  const int64_t whole = n / kSumLanes * kSumLanes;
  for (int64_t i = 0; i < whole; i += kSumLanes) {
    for (int v = 0; v < kVectors; ++v) body(v, x + i + v * kLanes);
  }
  if (whole == n) return;
  HWY_ALIGN float group[kSumLanes];
  std::fill(std::copy(x + whole, x + n, group), group + kSumLanes, rest);
  for (int v = 0; v < kVectors; ++v) body(v, group + v * kLanes);
  std::copy(group, group + (n - whole), x + whole);
}

double sum_of_squares(const float* x, int64_t n) {
  Sums sums;
  // The body only reads.
  for_groups(const_cast<float*>(x), n, 0.0f, [&](int v, const float* at) HWY_ATTR {
    const V value = load(at);
    sums.lanes[v] = hn::MulAdd(value, value, sums.lanes[v]);
  });
  return sums.total();
}

void scale_row(const float* x, const float* weight, int64_t n, double scale, float* out) {
  const V factor = hn::Set(Tag(), scale);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V normal = hn::Mul(load(x + i), factor);
    store(weight == nullptr ? normal : hn::Mul(normal, load(weight + i)), out + i);
  }
  for (; i < n; ++i) {
    const double normal = static_cast<double>(x[i]) * scale;
    out[i] = static_cast<float>(weight == nullptr ? normal : normal * static_cast<double>(weight[i]));
  }
}

double exp_row(float* x, int64_t n, double scale, double largest) {
  const V factor = hn::Set(Tag(), scale), shift = hn::Set(Tag(), largest);
  Sums sums;
  for_groups(x, n, -std::numeric_limits<float>::infinity(), [&](int v, float* at) HWY_ATTR {
    const V p = exp(hn::Sub(hn::Mul(load(at), factor), shift));
    sums.lanes[v] = hn::Add(sums.lanes[v], p);
    store(p, at);
  });
  return sums.total();
}

double exp_sum(const float* x, int64_t n, double largest) {
  const V shift = hn::Set(Tag(), largest);
  Sums sums;
  for_groups(const_cast<float*>(x), n, -std::numeric_limits<float>::infinity(),
             [&](int v, const float* at) HWY_ATTR { sums.lanes[v] = hn::Add(sums.lanes[v], exp(hn::Sub(load(at), shift))); });
  return sums.total();
}

float largest_of(const float* x, int64_t n) {
  const hn::CappedTag<float, 16> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float largest = x[0];
  int64_t i = 0;
  if (n >= lanes) {
    auto best = hn::LoadU(d, x);
    for (i = lanes; i + lanes <= n; i += lanes) best = hn::Max(best, hn::LoadU(d, x + i));
    largest = hn::GetLane(hn::MaxOfLanes(d, best));
  }
  for (; i < n; ++i) largest = std::max(largest, x[i]);
  return largest;
}

struct Gate {
  bool clamped, gpt_oss;
  double limit;
};

HWY_INLINE V activate(const Gate& how, V gate, V up) {
  const Tag d;
  if (how.clamped) {
    const V limit = hn::Set(d, how.limit);
    gate = hn::Min(gate, limit);
    up = hn::Max(hn::Min(up, limit), hn::Neg(limit));
  }
  const V steep = how.gpt_oss ? hn::Mul(gate, hn::Set(d, 1.702)) : gate;
  const V one = hn::Set(d, 1.0);
  const V gated = hn::Div(gate, hn::Add(one, exp(hn::Neg(steep))));
  return hn::Mul(gated, how.gpt_oss ? hn::Add(up, one) : up);
}

void activate_row(Activation activation, double limit, float* gate, const float* up, int64_t n) {
  const Gate how{limit > 0.0, activation == Activation::kGptOss, limit};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(activate(how, load(gate + i), load(up + i)), gate + i);
  if (i == n) return;
  HWY_ALIGN float gates[kLanes] = {}, ups[kLanes] = {};
  std::copy(gate + i, gate + n, gates);
  std::copy(up + i, up + n, ups);
  store(activate(how, load(gates), load(ups)), gates);
  std::copy(gates, gates + (n - i), gate + i);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {

HWY_EXPORT(sum_of_squares);
HWY_EXPORT(scale_row);
HWY_EXPORT(exp_row);
HWY_EXPORT(exp_sum);
HWY_EXPORT(largest_of);
HWY_EXPORT(activate_row);

double inverse_rms(const float* x, int64_t n, double eps) noexcept {
  return 1.0 / std::sqrt(HWY_DYNAMIC_DISPATCH(sum_of_squares)(x, n) / static_cast<double>(n) + eps);
}

void rms_norm(const float* x, const float* weight, int64_t n, double eps, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(scale_row)(x, weight, n, inverse_rms(x, n, eps), out);
}

double exp_row(float* x, int64_t n, double scale, double largest) noexcept { return HWY_DYNAMIC_DISPATCH(exp_row)(x, n, scale, largest); }

double exp_sum(const float* x, int64_t n, double largest) noexcept { return HWY_DYNAMIC_DISPATCH(exp_sum)(x, n, largest); }

float largest_of(const float* x, int64_t n) noexcept { return HWY_DYNAMIC_DISPATCH(largest_of)(x, n); }

void activate_row(Activation activation, double limit, float* gate, const float* up, int64_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(activate_row)(activation, limit, gate, up, n);
}

}  // namespace quern
#endif
