#include "runtime/math/product.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "formats/types/float_convert.h"
#include "runtime/math/float_buffer.h"
#include "runtime/math/packed_rows.h"
#include "runtime/math/product_tiles.h"
#include "tests/runtime/random_floats.h"

namespace quern {
namespace {

struct Case {
  int64_t n_rows, n_outputs, n_k;
  bool columns;  // w is given as [n_k, n_outputs]
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.n_rows << " x " << c.n_outputs << " over " << c.n_k << (c.columns ? " by columns" : "");
}

std::vector<Arithmetic> arithmetics() {
  std::vector<Arithmetic> all = {Arithmetic::kPlain, Arithmetic::kFloat};
  if (tiles_are_available()) all.push_back(Arithmetic::kTiles);
  return all;
}

float weight(const Case& c, const std::vector<float>& w, int64_t o, int64_t k) {
  return w[static_cast<size_t>(c.columns ? k * c.n_outputs + o : o * c.n_k + k)];
}

// y, rows `stride` apart; what lies between them keeps its value.
std::vector<float> multiply(Arithmetic arithmetic, const Case& c, const std::vector<float>& x, const std::vector<float>& w,
                            int64_t stride) {
  const ProductKernel& kernel = product_kernel(arithmetic);
  FloatBuffer x_memory, w_memory;
  const PackedMatrix packed_x = kernel.pack_rows({x.data(), c.n_rows, c.n_k, c.n_k}, x_memory.resize(packed_floats(c.n_rows, c.n_k)));
  float* w_out = w_memory.resize(packed_floats(c.n_outputs, c.n_k));
  const PackedMatrix packed_w = c.columns ? kernel.pack_columns({w.data(), c.n_k, c.n_outputs, c.n_outputs}, w_out)
                                          : kernel.pack_weights({w.data(), c.n_outputs, c.n_k, c.n_k}, w_out);
  std::vector<float> y(static_cast<size_t>(c.n_rows * stride), 7.0f);
  kernel.multiply(packed_x, packed_w, c.n_k, y.data(), stride);
  return y;
}

void expect_within_bound(Arithmetic arithmetic, const Case& c, const std::vector<float>& x, const std::vector<float>& w,
                         bool exact_weights) {
  const int64_t stride = c.n_outputs + 3;
  const std::vector<float> y = multiply(arithmetic, c, x, w, stride);
  const double bound = product_bound(arithmetic, c.n_k, exact_weights);
  for (int64_t i = 0; i < c.n_rows; ++i) {
    for (int64_t o = 0; o < c.n_outputs; ++o) {
      double exact = 0.0, magnitude = 0.0;
      for (int64_t k = 0; k < c.n_k; ++k) {
        const double product = static_cast<double>(x[static_cast<size_t>(i * c.n_k + k)]) * static_cast<double>(weight(c, w, o, k));
        exact += product;
        magnitude += std::abs(product);
      }
      ASSERT_LE(std::abs(static_cast<double>(y[static_cast<size_t>(i * stride + o)]) - exact), bound * magnitude + 1e-30)
          << name_of(arithmetic) << " row " << i << " output " << o;
    }
    for (int64_t o = c.n_outputs; o < stride; ++o) ASSERT_EQ(y[static_cast<size_t>(i * stride + o)], 7.0f) << "beyond the outputs";
  }
}

class ProductTest : public testing::TestWithParam<Case> {};

TEST_P(ProductTest, StaysWithinTheDerivedBound) {
  const Case c = GetParam();
  const std::vector<float> x = random_floats(static_cast<size_t>(c.n_rows * c.n_k), 1);
  std::vector<float> w = random_floats(static_cast<size_t>(c.n_outputs * c.n_k), 2);
  for (const Arithmetic arithmetic : arithmetics()) expect_within_bound(arithmetic, c, x, w, false);
  for (float& value : w) value = bf16_to_f32(f32_to_bf16(value));
  for (const Arithmetic arithmetic : arithmetics()) expect_within_bound(arithmetic, c, x, w, true);
}

// Inputs with outliers a thousand times the rest, as real activations have them.
TEST_P(ProductTest, StaysWithinTheBoundWithOutliers) {
  const Case c = GetParam();
  std::vector<float> x = random_floats(static_cast<size_t>(c.n_rows * c.n_k), 3);
  for (size_t i = 0; i < x.size(); i += 37) x[i] *= 1000.0f;
  const std::vector<float> w = random_floats(static_cast<size_t>(c.n_outputs * c.n_k), 4);
  for (const Arithmetic arithmetic : arithmetics()) expect_within_bound(arithmetic, c, x, w, false);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ProductTest,
                         testing::Values(Case{1, 1, 1, false}, Case{16, 12, 256, false}, Case{5, 17, 255, false}, Case{33, 29, 257, true},
                                         Case{16, 3, 1000, false}, Case{40, 64, 33, true}, Case{17, 113, 2048, false},
                                         Case{70, 48, 4500, false}));

// What product.h says of the order: blocks of 256 fused steps, added in order.
float sum_in_blocks(const Case& c, const std::vector<float>& x, const std::vector<float>& w, int64_t i, int64_t o) {
  float total = 0.0f;
  for (int64_t first = 0; first < c.n_k; first += kSumBlock) {
    float sum = 0.0f;
    for (int64_t k = first; k < std::min(c.n_k, first + kSumBlock); ++k)
      sum = std::fma(x[static_cast<size_t>(i * c.n_k + k)], weight(c, w, o, k), sum);
    total = first == 0 ? sum : total + sum;
  }
  return total;
}

void expect_sums(Arithmetic arithmetic, const Case& c, uint32_t seed,
                 const std::function<float(const std::vector<float>&, const std::vector<float>&, int64_t, int64_t)>& expected,
                 const std::string& where) {
  const std::vector<float> x = random_floats(static_cast<size_t>(c.n_rows * c.n_k), seed);
  const std::vector<float> w = random_floats(static_cast<size_t>(c.n_outputs * c.n_k), seed + 1);
  const std::vector<float> y = multiply(arithmetic, c, x, w, c.n_outputs);
  for (int64_t i = 0; i < c.n_rows; ++i) {
    for (int64_t o = 0; o < c.n_outputs; ++o)
      ASSERT_EQ(y[static_cast<size_t>(i * c.n_outputs + o)], expected(x, w, i, o)) << where << " row " << i << " output " << o;
  }
}

TEST(FloatProduct, GivesTheSameBitsOnEveryTargetWithFusedMultiplyAdd) {
  const Case c{19, 67, 700, false};
  const int64_t with_fma = HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL | HWY_NEON;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if ((target & with_fma) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    expect_sums(
        Arithmetic::kFloat, c, 5,
        [&](const std::vector<float>& x, const std::vector<float>& w, int64_t i, int64_t o) { return sum_in_blocks(c, x, w, i, o); },
        hwy::TargetName(target));
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(FloatProduct, StaysWithinTheBoundOnEveryTarget) {
  const Case c{19, 67, 700, false};
  const std::vector<float> x = random_floats(static_cast<size_t>(c.n_rows * c.n_k), 7);
  const std::vector<float> w = random_floats(static_cast<size_t>(c.n_outputs * c.n_k), 8);
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    expect_within_bound(Arithmetic::kFloat, c, x, w, false);
  }
  hwy::SetSupportedTargetsForTest(0);
}

// What product_tiles.cc says of the order, in plain floats.
float sum_in_tiles(const Case& c, const std::vector<float>& x, const std::vector<float>& w, int64_t i, int64_t o) {
  const auto first_part = [](float v) { return bf16_to_f32(f32_to_bf16(v)); };
  float total = 0.0f;
  for (int64_t step = 0; step < c.n_k; step += kStep) {
    const auto add = [&](bool second_x, bool second_w) {
      float even = 0.0f, odd = 0.0f;
      for (int64_t k = step; k < std::min(c.n_k, step + kStep); ++k) {
        float a = x[static_cast<size_t>(i * c.n_k + k)], b = weight(c, w, o, k);
        a = second_x ? first_part(a - first_part(a)) : first_part(a);
        b = second_w ? first_part(b - first_part(b)) : first_part(b);
        float& sum = k % 2 == 0 ? even : odd;
        sum = std::fma(a, b, sum);
      }
      total += even + odd;
    };
    add(true, false);
    add(false, false);
    add(false, true);
  }
  return total;
}

TEST(TileProduct, SumsInTheStatedOrder) {
  if (!tiles_are_available()) GTEST_SKIP() << "this CPU has no BF16 tiles";
  for (const Case& c : {Case{19, 67, 700, false}, Case{64, 64, 1024, false}, Case{33, 20, 100, true}, Case{8, 40, 4600, false}}) {
    expect_sums(
        Arithmetic::kTiles, c, 11,
        [&](const std::vector<float>& x, const std::vector<float>& w, int64_t i, int64_t o) { return sum_in_tiles(c, x, w, i, o); },
        "tiles");
  }
}

TEST(PackedMatrix, PartsBeginAtMultiplesOfTheStep) {
  for (const Arithmetic arithmetic : arithmetics()) {
    const ProductKernel& kernel = product_kernel(arithmetic);
    const std::vector<float> x = random_floats(16 * 96, 13), w = random_floats(48 * 96, 14);
    FloatBuffer x_memory, part_memory, w_memory;
    const PackedMatrix part = kernel.pack_rows({x.data() + 32, 16, 64, 96}, part_memory.resize(packed_floats(16, 64)));
    const PackedMatrix packed_w = kernel.pack_weights({w.data(), 48, 96, 96}, w_memory.resize(packed_floats(48, 96)));
    std::vector<float> y(16 * 32), expected(16 * 32);
    kernel.multiply(part, packed_w.from_row(16).from_k(32), 64, y.data(), 32);
    FloatBuffer other;
    kernel.multiply(part, kernel.pack_weights({w.data() + 16 * 96 + 32, 32, 64, 96}, other.resize(packed_floats(32, 64))), 64,
                    expected.data(), 32);
    EXPECT_EQ(y, expected) << name_of(arithmetic);
  }
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
