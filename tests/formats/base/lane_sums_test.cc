#include "formats/base/lane_sums.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/formats/on_every_target.h"

namespace quern {
namespace {

double term(float a) { return static_cast<double>(a); }

TEST(LaneSums, AreThoseOfThePlainLoopsOnEveryTarget) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const size_t n : {size_t{0}, size_t{1}, size_t{8}, size_t{13}, size_t{256}, size_t{1031}}) {
    std::vector<float> h(n), x(n), y(n);
    for (std::vector<float>* values : {&h, &x, &y}) {
      for (float& value : *values) value = normal(random);
    }
    LaneSums squares{}, differences{}, products{};
    for (size_t i = 0; i < n; ++i) {
      squares[i % 8] += term(x[i]) * term(x[i]);
      differences[i % 8] += (term(x[i]) - term(y[i])) * (term(x[i]) - term(y[i]));
      products[i % 8] += term(h[i]) * term(x[i]) * term(y[i]);
    }
    on_every_target([&] {
      LaneSums sums{};
      add_squares(x, sums);
      EXPECT_EQ(sums, squares) << n;
      sums = {};
      add_squared_differences(x, y, sums);
      EXPECT_EQ(sums, differences) << n;
      sums = {};
      add_weighted_products(h, x, y, sums);
      EXPECT_EQ(sums, products) << n;
    });
  }
}

TEST(LaneSums, GoOnWhereTheyWereLeft) {
  std::vector<float> x(100);
  for (size_t i = 0; i < x.size(); ++i) x[i] = 1.0f / static_cast<float>(i + 1);
  LaneSums whole{}, parts{};
  add_squares(x, whole);
  add_squares(std::span(x).first(64), parts);
  add_squares(std::span(x).subspan(64), parts);
  EXPECT_EQ(whole, parts);
  EXPECT_EQ(total(LaneSums{1, 2, 3, 4, 5, 6, 7, 8}), 36.0);
}

}  // namespace
}  // namespace quern
