// The errors of many scales for some weights of 16 rows, in 16 bits. Compiled once per CPU target.
//
// What decides between scales are sums of squared rounding errors, and 16 bits are enough for those: weights are taken relative to the
// row's largest (2^-16 of it), their quotients by a scale in units of a level with at least 7 bits after the point, and the rest that
// rounding leaves is multiplied with the root of the importance before it is squared: roots need half the bits for the same range. Two
// weights of one row lie beside each other, so that one instruction squares and adds both into 32 bits. A search decides by these errors;
// what it stores comes from full precision.

#if defined(QUERN_QUANTIZE_ROW_ERRORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_ROW_ERRORS_INL_H_
#undef QUERN_QUANTIZE_ROW_ERRORS_INL_H_
#else
#define QUERN_QUANTIZE_ROW_ERRORS_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "quantize/plain/block_weights.h"
#include "quantize/plain/lanes-inl.h"
#include "quantize/plain/levels-inl.h"
#include "quantize/plain/shorts-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// of(j), up to 32767 and rounded, two to a number.
template <int n, typename Of>
HWY_INLINE void pair_numbers(Of of, int32_t (&pairs)[n / 2]) {
  const auto fixed = [&](int j) { return static_cast<int32_t>(std::nearbyint(of(j))); };
  for (int j = 0; j < n; j += 2) pairs[j / 2] = fixed(j) | fixed(j + 1) * 65536;
}

// Roots of importance with `largest` for the heaviest.
template <int n>
HWY_INLINE void pair_roots(const float* w, float largest, int32_t (&pairs)[n / 2]) {
  const float heaviest = *std::max_element(w, w + n);
  pair_numbers<n>([&](int j) { return std::sqrt(w[j] / heaviest) * largest; }, pairs);
}

// of(j): weight j of the rows in 16 bits.
template <int n, typename Of>
HWY_INLINE void pair_weights(Of of, ShortPart (&pairs)[n / 2][kParts]) {
  for (int j = 0; j < n; j += 2) {
    const Lanes even = of(j);
    const Lanes odd = of(j + 1);
    for (int part = 0; part < kParts; ++part) pairs[j / 2][part] = pair_up(to_int(even.part[part]), to_int(odd.part[part]));
  }
}

// The largest root, as a power of two, for which n squares of rests, weighted, fit into 31 bits.
constexpr float most_root(float most_rest, int n) {
  float root = 16384.0f;
  while (root * root * (most_rest * most_rest) * static_cast<float>(n) > 0x1p61f) root *= 0.5f;
  return root;
}

template <typename Levels, int n>
class RowErrors {
 public:
  // What the importance of the columns gives for every row alike.
  struct Columns {
    Columns() = default;
    explicit Columns(const float* w) : to_error(*std::max_element(w, w + n) * kToError) { pair_roots<n>(w, kMostRoot, roots); }

    int32_t roots[n / 2];  // of two importances each
    float to_error;
  };

  RowErrors() = default;

  // Element j of row i: x[j][i], importance w[j], of which `columns`, which is referred to, was made.
  RowErrors(const float (*x)[kLanes], const float* w, const Columns& columns) : columns_(&columns) {
    top_ = splat(0x1p-60f);
    energy_ = splat(0.0f);
    for (int j = 0; j < n; ++j) {
      const Lanes value = load(x[j]);
      top_ = max(top_, abs(value));
      energy_ += splat(w[j]) * value * value;
    }
    const Lanes to_short = splat(kMostShort) / top_;
    pair_weights<n>([&](int j) { return load(x[j]) * to_short; }, x_);
  }

  // error[c]: sum w (x - scale[c] v)^2, v being the level nearest to x / scale[c]. Scales so small that x / scale does not fit count as 0.
  template <int kCount>
  HWY_INLINE void of_scales(const Lanes* scale, Lanes* error) const {
    const PartTag tag;
    const Lanes wanted = top_ * splat((1 << Levels::kFraction) * (32768.0f / kMostShort));
    for (int part = 0; part < kParts; ++part) {
      ShortPart inverse[kCount];
      IntPart sum[kCount];
      Part usable[kCount];  // the scale, or 0
      for (int c = 0; c < kCount; ++c) {
        const Part s = scale[c].part[part];
        const auto fits = hn::Lt(wanted.part[part], hn::Mul(hn::Abs(s), hn::Set(tag, kMostShort + 0.25f)));
        usable[c] = hn::IfThenElseZero(fits, s);
        const IntPart fixed = to_int(hn::IfThenElseZero(fits, hn::Div(wanted.part[part], s)));
        inverse[c] = pair_up(fixed, fixed);
        sum[c] = hn::Zero(IntPartTag());
      }
      for (int j = 0; j < n / 2; ++j) {
        const ShortPart x = x_[j][part];
        const ShortPart root = every_pair(columns_->roots[j]);
        for (int c = 0; c < kCount; ++c) {
          const ShortPart rest = multiply_fixed(Levels::rest(multiply_fixed(x, inverse[c])), root);
          sum[c] = add_products_of_pairs(sum[c], rest, rest);
        }
      }
      for (int c = 0; c < kCount; ++c) {
        const Part squared = hn::Mul(hn::Mul(usable[c], usable[c]), hn::Set(tag, columns_->to_error));
        const Part found = hn::Mul(hn::ConvertTo(tag, sum[c]), squared);
        error[c].part[part] = hn::IfThenElse(hn::Eq(usable[c], hn::Zero(tag)), energy_.part[part], found);
      }
    }
  }

 private:
  static constexpr float kMostRoot = most_root(Levels::kMostRest, n);
  static constexpr float kToError = power_of_two(30 - 2 * Levels::kRestBits) / (kMostRoot * kMostRoot);

  const Columns* columns_;
  Lanes top_;     // largest magnitude of each row
  Lanes energy_;  // sum w x^2
  ShortPart x_[n / 2][kParts];
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_ROW_ERRORS_INL_H_
