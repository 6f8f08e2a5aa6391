#include "formats/base/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace quern {
namespace {

std::vector<double> wide_values(size_t n) {
  std::mt19937_64 random(3);
  std::vector<double> values;
  for (size_t i = 0; i < n; ++i) values.push_back(std::ldexp(static_cast<double>(random() >> 11), static_cast<int>(random() % 200) - 150));
  return values;
}

TEST(ExactSum, AddsWithoutRounding) {
  ExactSum sum;
  sum.add(1e300);
  for (int i = 0; i < 1000; ++i) sum.add(1e-300);
  ExactSum big;
  big.add(1e300);
  EXPECT_NE(sum.digits(), big.digits());
  EXPECT_EQ(sum.value(), 1e300);
  ExactSum small;
  for (int i = 0; i < 4; ++i) small.add(std::numeric_limits<double>::denorm_min());
  EXPECT_EQ(small.value(), 4 * std::numeric_limits<double>::denorm_min());
  EXPECT_EQ(ExactSum().value(), 0);
}

TEST(ExactSum, DoesNotDependOnOrderOrGrouping) {
  std::vector<double> values = wide_values(5000);
  ExactSum forward;
  for (const double value : values) forward.add(value);
  std::shuffle(values.begin(), values.end(), std::mt19937(1));
  ExactSum total;
  for (size_t begin = 0; begin < values.size(); begin += 77) {
    ExactSum group;
    for (size_t i = begin; i < std::min(begin + 77, values.size()); ++i) group.add(values[i]);
    total.add(group);
  }
  EXPECT_EQ(total.digits(), forward.digits());
  EXPECT_EQ(total.value(), forward.value());
  long double reference = 0;
  for (const double value : values) reference += value;
  EXPECT_NEAR(total.value() / static_cast<double>(reference), 1.0, 1e-14);
}

TEST(ExactSum, SurvivesItsDigits) {
  ExactSum sum;
  for (const double value : wide_values(100)) sum.add(value);
  EXPECT_EQ(ExactSum::from_digits(sum.digits()).value(), sum.value());
}

}  // namespace
}  // namespace quern
