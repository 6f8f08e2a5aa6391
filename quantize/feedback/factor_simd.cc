// The product inside the factorisation: one row of R times a packed block of 64 columns.

#include "quantize/feedback/factor_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/feedback/factor_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void subtract_product(const float* row, const double* b, int64_t n_k, double* out) {
  const hn::CappedTag<double, 8> tag;
  constexpr int64_t kWidth = static_cast<int64_t>(hn::MaxLanes(hn::CappedTag<double, 8>()));
  constexpr int64_t kVectors = 4;
  for (int64_t c = 0; c < kFactorBlock; c += kVectors * kWidth) {
    hn::Vec<decltype(tag)> sum[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) sum[v] = hn::LoadU(tag, out + c + v * kWidth);
    for (int64_t k = 0; k < n_k; ++k) {
      const auto factor = hn::Set(tag, static_cast<double>(row[k]));
      for (int64_t v = 0; v < kVectors; ++v) {
        sum[v] = hn::Sub(sum[v], hn::Mul(factor, hn::LoadU(tag, b + k * kFactorBlock + c + v * kWidth)));
      }
    }
    for (int64_t v = 0; v < kVectors; ++v) hn::StoreU(sum[v], tag, out + c + v * kWidth);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
HWY_EXPORT(subtract_product);
void subtract_product(const float* row, const double* b, int64_t n_k, double* out) noexcept {
  HWY_DYNAMIC_DISPATCH(subtract_product)(row, b, n_k, out);
}
}  // namespace quern
#endif
