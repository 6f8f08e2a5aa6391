#include "runtime/panel_product.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <ostream>
#include <vector>

#include "tests/runtime/random_floats.h"

namespace quern {
namespace {

struct Case {
  int64_t n_rows, n_k;
  bool transposed;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.n_rows << " x " << c.n_k << (c.transposed ? " transposed" : ""); }

class PanelProductTest : public testing::TestWithParam<Case> {};

TEST_P(PanelProductTest, FastAgreesWithPlainWithinTheDerivedBound) {
  const auto [n_rows, n_k, transposed] = GetParam();
  const std::vector<float> w = random_floats(static_cast<size_t>(n_rows * n_k), 1);
  const std::vector<float> x = random_floats(static_cast<size_t>(n_k * kPanelWidth), 2);
  const PanelMatrix matrix{w.data(), n_rows, transposed ? 1 : n_k, transposed ? n_rows : 1};
  const auto n_out = static_cast<size_t>(n_rows * kPanelWidth);
  std::vector<float> plain(n_out), fast(n_out);
  panel_product_plain(matrix, x.data(), n_k, plain.data());
  panel_product_fast(matrix, x.data(), n_k, fast.data());
  for (int64_t o = 0; o < n_rows; ++o) {
    for (int64_t lane = 0; lane < kPanelWidth; ++lane) {
      double exact = 0.0, magnitude = 0.0;
      for (int64_t k = 0; k < n_k; ++k) {
        const double product = static_cast<double>(w[static_cast<size_t>(o * matrix.row_stride + k * matrix.column_stride)]) *
                               static_cast<double>(x[static_cast<size_t>(k * kPanelWidth + lane)]);
        exact += product;
        magnitude += std::abs(product);
      }
      const auto i = static_cast<size_t>(o * kPanelWidth + lane);
      EXPECT_EQ(plain[i], static_cast<float>(exact));
      EXPECT_LE(std::abs(static_cast<double>(fast[i]) - exact), fast_product_bound(n_k) * magnitude + 1e-30);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PanelProductTest,
                         testing::Values(Case{1, 1, false}, Case{12, 256, false}, Case{17, 255, false}, Case{29, 257, true},
                                         Case{3, 1000, false}, Case{64, 33, true}, Case{16, 2048, false}));

TEST(PanelProduct, GivesTheSameBitsOnEveryTargetWithFusedMultiplyAdd) {
  const int64_t n_rows = 19, n_k = 700;
  const std::vector<float> w = random_floats(static_cast<size_t>(n_rows * n_k), 3);
  const std::vector<float> x = random_floats(static_cast<size_t>(n_k * kPanelWidth), 4);
  std::vector<float> expected(static_cast<size_t>(n_rows * kPanelWidth));
  for (int64_t o = 0; o < n_rows; ++o) {
    for (int64_t lane = 0; lane < kPanelWidth; ++lane) {
      float total = 0.0f;
      for (int64_t first = 0; first < n_k; first += kSumBlock) {
        float sum = 0.0f;
        for (int64_t k = first; k < std::min(n_k, first + kSumBlock); ++k) {
          sum = std::fma(w[static_cast<size_t>(o * n_k + k)], x[static_cast<size_t>(k * kPanelWidth + lane)], sum);
        }
        total += sum;
      }
      expected[static_cast<size_t>(o * kPanelWidth + lane)] = total;
    }
  }
  const int64_t with_fma = HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if ((target & with_fma) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    std::vector<float> out(expected.size());
    panel_product_fast({w.data(), n_rows, n_k, 1}, x.data(), n_k, out.data());
    EXPECT_EQ(out, expected) << hwy::TargetName(target);
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(PackedRows, PadsTheLastPanelWithZeros) {
  const std::vector<float> rows = random_floats(17 * 5, 5);
  const PackedRows packed(rows.data(), 17, 5, 5);
  ASSERT_EQ(packed.n_panels(), 2);
  EXPECT_EQ(packed.panel(0)[2 * kPanelWidth + 3], rows[3 * 5 + 2]);
  EXPECT_EQ(packed.panel(1)[4 * kPanelWidth], rows[16 * 5 + 4]);
  EXPECT_EQ(packed.panel(1)[4 * kPanelWidth + 1], 0.0f);
}

}  // namespace
}  // namespace quern
