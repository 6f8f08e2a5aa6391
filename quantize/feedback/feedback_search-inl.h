// What the encoders with error feedback share: a tile while its weights are settled from left to right. Compiled once per CPU target.
//
// The weights of a sub-block are rounded one after the other, each aiming at its own weight plus what the errors before it ask for, and
// a candidate for the sub-block's parameters is judged by doing just that: its cost is the sum of D_j e_j^2 over the sub-block, the part
// of the layer's output error that nothing later can take back. Sixteen candidates run side by side, one per lane.

#if defined(QUERN_QUANTIZE_FEEDBACK_SEARCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_FEEDBACK_SEARCH_INL_H_
#undef QUERN_QUANTIZE_FEEDBACK_SEARCH_INL_H_
#else
#define QUERN_QUANTIZE_FEEDBACK_SEARCH_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "quantize/feedback/feedback_tile.h"
#include "quantize/plain/block_weights.h"
#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/levels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

inline constexpr int kTile = 256;

// y[k] += a x[k], k ascending in vectors: element by element the same on every CPU.
HWY_NOINLINE inline void add_scaled(float a, const float* x, int n, float* y) {
  const hn::ScalableTag<float> tag;
  const int width = static_cast<int>(hn::Lanes(tag));
  int k = 0;
  for (; k + width <= n; k += width)
    hn::StoreU(hn::Add(hn::LoadU(tag, y + k), hn::Mul(hn::Set(tag, a), hn::LoadU(tag, x + k))), tag, y + k);
  for (; k < n; ++k) y[k] += a * x[k];
}

// n weights of a tile from `first` on as the searches see them: scaled so that the largest shifted one lies in [1, 2).
struct Normalised {
  Normalised(const FeedbackTile& tile, int first, int n_weights, float smallest = kSmallestForF16)
      : n(n_weights), stride(tile.n), r(tile.r + first * tile.n + first) {
    float largest = 0.0f;
    float heaviest = 0.0f;
    for (int j = 0; j < n; ++j) {
      largest = std::max(largest, std::fabs(tile.shifted[first + j]));
      heaviest = std::max(heaviest, tile.d[first + j]);
    }
    vanishes = !(largest >= smallest);
    const int exponent = vanishes ? 0 : static_cast<int>(std::bit_cast<uint32_t>(largest) >> 23) - 127;
    unit = std::ldexp(1.0f, exponent);
    const float down = std::ldexp(1.0f, -exponent);
    for (int j = 0; j < n; ++j) {
      x[j] = tile.x[first + j] * down;
      shifted[j] = tile.shifted[first + j] * down;
      w[j] = std::max(tile.d[first + j] / heaviest, kImportanceFloor);
    }
  }

  const float* row(int j) const { return r + j * stride; }

  int n;
  int stride;
  const float* r;
  alignas(64) float x[kTile];
  alignas(64) float shifted[kTile];
  alignas(64) float w[kTile];
  float unit = 1.0f;
  bool vanishes = false;
};

// The tile with some of its weights settled.
struct Settled {
  explicit Settled(const Normalised& in) { std::copy_n(in.shifted, in.n, aim); }

  alignas(64) float aim[kTile];    // what each weight should become, given the errors so far; final for settled weights
  alignas(64) float value[kTile];  // y in the units of the search
  alignas(64) float level[kTile];
  double cost = 0.0;

  // Weights first .. first + n - 1 got their values: adds their cost, and hands their errors to everything after them. Inside these n the
  // aims must be right already.
  void hand_on(const Normalised& in, int first, int n) {
    for (int j = first; j < first + n; ++j) {
      const double e = static_cast<double>(aim[j] - value[j]);
      cost += static_cast<double>(in.w[j]) * e * e;
      const int rest = first + n;
      add_scaled(in.x[j] - value[j], in.row(j) + rest, in.n - rest, aim + rest);
    }
  }
};

// Costs of 16 (scale, min) for n weights from `first` on, y = scale * level - min.
template <typename Levels>
Lanes feedback_costs(const Normalised& in, const Settled& at, int first, int n, const Lanes& scale, const Lanes& min) {
  Lanes aim[kTile];
  for (int j = 0; j < n; ++j) aim[j] = splat(at.aim[first + j]);
  const Lanes inverse = reciprocal_or_zero(scale);
  Lanes cost = splat(0.0f);
  for (int j = 0; j < n; ++j) {
    const Lanes y = scale * Levels::nearest((aim[j] + min) * inverse) - min;
    const Lanes e = aim[j] - y;
    cost += splat(in.w[first + j]) * e * e;
    const Lanes error = splat(in.x[first + j]) - y;
    const float* row = in.row(first + j) + first;
    for (int k = j + 1; k < n; ++k) aim[k] += splat(row[k]) * error;
  }
  return cost;
}

// Settles these weights with one (scale, min).
template <typename Levels>
void settle(const Normalised& in, Settled& at, int first, int n, float scale, float min) {
  const Lanes inverse = reciprocal_or_zero(splat(scale));
  for (int j = first; j < first + n; ++j) {
    const float level = lane(Levels::nearest((splat(at.aim[j]) + splat(min)) * inverse), 0);
    at.level[j] = level;
    at.value[j] = scale * level - min;
    add_scaled(in.x[j] - at.value[j], in.row(j) + j + 1, first + n - j - 1, at.aim + j + 1);
  }
  at.hand_on(in, first, n);
}

// Settles these weights with levels that were chosen elsewhere (n of them).
inline void settle_levels(const Normalised& in, Settled& at, int first, int n, float scale, const float* levels) {
  for (int j = first; j < first + n; ++j) {
    at.level[j] = levels[j - first];
    at.value[j] = scale * at.level[j];
    add_scaled(in.x[j] - at.value[j], in.row(j) + j + 1, first + n - j - 1, at.aim + j + 1);
  }
  at.hand_on(in, first, n);
}

// out_j = u_j + sum over i < j of u_i R_ij: what the values u do to the aims.
inline void transform(const Normalised& in, const float* u, float* out) {
  std::copy_n(u, in.n, out);
  for (int j = 0; j < in.n; ++j) {
    if (u[j] != 0.0f) add_scaled(u[j], in.row(j) + j + 1, in.n - j - 1, out + j + 1);
  }
}

// The least-squares d, and dmin, of y = d a - dmin m for settled codes, under the tile's own matrix. m may be nullptr.
struct Refit {
  double d = 0.0;
  double dmin = 0.0;
  bool found = false;
};

inline Refit refit_scales(const Normalised& in, const Settled& at, const float* a, const float* m) {
  alignas(64) float ta[kTile];
  alignas(64) float tm[kTile];
  alignas(64) float ty[kTile];
  transform(in, a, ta);
  if (m != nullptr) transform(in, m, tm);
  transform(in, at.value, ty);
  double aa = 0.0, am = 0.0, mm = 0.0, xa = 0.0, xm = 0.0;
  for (int j = 0; j < in.n; ++j) {
    const auto w = static_cast<double>(in.w[j]);
    const double x = static_cast<double>(at.aim[j] - at.value[j]) + static_cast<double>(ty[j]);
    aa += w * static_cast<double>(ta[j]) * static_cast<double>(ta[j]);
    xa += w * x * static_cast<double>(ta[j]);
    if (m == nullptr) continue;
    am += w * static_cast<double>(ta[j]) * static_cast<double>(tm[j]);
    mm += w * static_cast<double>(tm[j]) * static_cast<double>(tm[j]);
    xm += w * x * static_cast<double>(tm[j]);
  }
  if (!(aa > 0.0)) return {};
  const double det = aa * mm - am * am;
  if (m != nullptr && det > 1e-9 * aa * mm) {
    const double dmin = (am * xa - aa * xm) / det;
    if (dmin >= 0.0) return {(mm * xa - am * xm) / det, dmin, true};
  }
  return {xa / aa, 0.0, true};
}

// errors[first ..] in the units of the file.
inline void store_errors(const Normalised& in, const Settled& at, float* errors) {
  for (int j = 0; j < in.n; ++j) errors[j] = (in.x[j] - at.value[j]) * in.unit;
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_FEEDBACK_SEARCH_INL_H_
