#include "runtime/math/vector_math.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/formats/on_every_target.h"
#include "tests/runtime/random_floats.h"

namespace quern {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(VectorMath, ExponentialsEqualTheStandardOnesAndSumInEightLanes) {
  for (const int64_t n : {1, 7, 8, 29, 512}) {
    const std::vector<float> x = random_floats(static_cast<size_t>(n), 1);
    on_every_target([&] {
      std::vector<float> row = x;
      double lanes[8] = {};
      const double sum = exp_row(row.data(), n, 3.5, 2.25);
      for (size_t i = 0; i < row.size(); ++i) {
        const double expected = std::exp(static_cast<double>(x[i]) * 3.5 - 2.25);
        EXPECT_NEAR(static_cast<double>(row[i]), expected, 6e-8 * expected);
        lanes[i % 8] += expected;
      }
      const double total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
      EXPECT_NEAR(sum, total, 1e-14 * total);
      EXPECT_NEAR(
          exp_sum(x.data(), n, 0.5),
          [&] {
            double s = 0.0;
            for (const float v : x) s += std::exp(static_cast<double>(v) - 0.5);
            return s;
          }(),
          1e-14 * static_cast<double>(n));
    });
  }
}

TEST(VectorMath, MaskedScoresGiveZeroAndNanStays) {
  on_every_target([] {
    std::vector<float> row(11, 1.0f);
    row[2] = -kInfinity;
    row[5] = -1e4f;
    EXPECT_NEAR(exp_row(row.data(), 11, 1.0, 1.0), 9.0, 1e-12);
    EXPECT_EQ(row[2], 0.0f);
    EXPECT_EQ(row[5], 0.0f);
    row[3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(exp_row(row.data(), 11, 1.0, 1.0)));
    EXPECT_TRUE(std::isnan(row[3]));
  });
}

TEST(VectorMath, NormsAreTheSameBitsWhateverTheWidth) {
  const std::vector<float> x = random_floats(203, 2), weight = random_floats(203, 3);
  std::vector<std::vector<float>> results;
  const int64_t with_fma = HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL | HWY_NEON;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    std::vector<float> out(203), row = x;
    rms_norm(x.data(), weight.data(), 203, 1e-5, out.data());
    activate_row(Activation::kSilu, 0.0, out.data(), weight.data(), 203);
    const double sum = exp_row(row.data(), 203, 0.7, 0.1);
    out.insert(out.end(), row.begin(), row.end());
    out.push_back(static_cast<float>(sum));
    if ((target & with_fma) != 0) results.push_back(std::move(out));
  }
  hwy::SetSupportedTargetsForTest(0);
  for (const std::vector<float>& result : results) EXPECT_EQ(result, results.front());
}

TEST(VectorMath, ActivationsEqualTheirFormulas) {
  const std::vector<float> gate = random_floats(37, 4), up = random_floats(37, 5);
  on_every_target([&] {
    for (const bool gpt_oss : {false, true}) {
      for (const double limit : {0.0, 0.6}) {
        std::vector<float> out = gate;
        activate_row(gpt_oss ? Activation::kGptOss : Activation::kSilu, limit, out.data(), up.data(), 37);
        for (size_t i = 0; i < out.size(); ++i) {
          double g = static_cast<double>(gate[i]), u = static_cast<double>(up[i]);
          if (limit > 0.0) {
            g = std::min(g, limit);
            u = std::clamp(u, -limit, limit);
          }
          const double expected = g / (1.0 + std::exp((gpt_oss ? -1.702 : -1.0) * g)) * (gpt_oss ? u + 1.0 : u);
          EXPECT_NEAR(static_cast<double>(out[i]), expected, 6e-8 * std::abs(expected));
        }
      }
    }
  });
}

TEST(VectorMath, LargestOfAnyLength) {
  on_every_target([] {
    for (size_t n : {1, 5, 16, 40}) {
      for (size_t at = 0; at < n; ++at) {
        std::vector<float> x(n, -3.0f);
        x[at] = -1.0f;
        EXPECT_EQ(largest_of(x.data(), static_cast<int64_t>(n)), -1.0f);
      }
    }
  });
}

}  // namespace
}  // namespace quern
