// A tile of 16 x 16 sums is made in halves of eight columns of a, whose sums stay in registers over all rows. Products are rounded before
// they are added, so CPUs with and without fused multiply-add give the same bits.

#include "runtime/observe/moment_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/observe/moment_product_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<float, kMomentTile>;

// Lanes are columns of b, never positions in the sum: as many of the 16 as a vector holds, for kRows columns of a.
template <int kRows>
HWY_INLINE void tile_rows(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int64_t n_rows, int64_t lane, float* HWY_RESTRICT out) {
  const Tag d;
  hn::Vec<Tag> sums[kRows];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (int64_t t = 0; t < n_rows; ++t) {
    const auto column = hn::LoadU(d, b + t * kMomentTile + lane);
    for (int i = 0; i < kRows; ++i) sums[i] = hn::Add(sums[i], hn::Mul(hn::Set(d, a[t * kMomentTile + i]), column));
  }
  for (int i = 0; i < kRows; ++i) hn::StoreU(sums[i], d, out + i * kMomentTile + lane);
}

void moment_tile(const float* a, const float* b, int64_t n_rows, float* out) {
  constexpr int kRows = 8;
  for (int64_t i = 0; i < kMomentTile; i += kRows) {
    for (int64_t lane = 0; lane < kMomentTile; lane += static_cast<int64_t>(hn::Lanes(Tag())))
      tile_rows<kRows>(a + i, b, n_rows, lane, out + i * kMomentTile);
  }
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
HWY_EXPORT(moment_tile);
void moment_tile(const float* a, const float* b, int64_t n_rows, float* out) noexcept {
  HWY_DYNAMIC_DISPATCH(moment_tile)(a, b, n_rows, out);
}
}  // namespace quern
#endif
