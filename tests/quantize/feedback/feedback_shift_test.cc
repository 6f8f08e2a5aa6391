#include "quantize/feedback/feedback_shift.h"

#include <gtest/gtest.h>

#include <hwy/targets.h>
#include <cmath>
#include <random>
#include <vector>

namespace quern {
namespace {

SecondMoment moment_of(int64_t n, int64_t n_rows, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  SecondMoment moment{n, n_rows, 0.0, std::vector<float>(half_position(n, 0))};
  std::vector<float> x(static_cast<size_t>(n));
  for (int64_t t = 0; t < n_rows; ++t) {
    const float common = normal(random);
    for (float& value : x) value = common + normal(random);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j)
        moment.half[half_position(i, j)] += x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)] / static_cast<float>(n_rows);
    }
  }
  return moment;
}

struct Problem {
  static constexpr int64_t kColumns = 288;  // more than one tile, not a multiple of it
  static constexpr int64_t kRows = 19;
  SecondMoment moment;
  FeedbackFactor factor;
  std::vector<float> w, shift;

  Problem() {
    std::mt19937_64 random(3);
    std::normal_distribution<float> normal;
    moment = moment_of(kColumns, 2000, random);
    factor = factorise(moment);
    for (int64_t i = 0; i < kRows * kColumns; ++i) w.push_back(normal(random));
    for (int64_t i = 0; i < kColumns * kColumns; ++i) shift.push_back(0.01f * normal(random));
  }

  std::vector<float> corrections(int64_t first, int64_t n_rows) const {
    std::vector<float> z(static_cast<size_t>(n_rows * kColumns));
    shift_corrections(std::span(w).subspan(static_cast<size_t>(first * kColumns), z.size()), n_rows, factor, shift, z);
    return z;
  }
};

// z H' = w S with the damped H', in double.
TEST(ShiftCorrections, SolveTheNormalEquations) {
  const Problem p;
  const std::vector<float> z = p.corrections(0, Problem::kRows);
  double mean = 0.0;
  for (int64_t i = 0; i < Problem::kColumns; ++i) mean += static_cast<double>(p.moment.half[half_position(i, i)]) / Problem::kColumns;
  const auto h = [&](int64_t i, int64_t j) {
    const double value = static_cast<double>(p.moment.half[i >= j ? half_position(i, j) : half_position(j, i)]);
    return i == j ? value + p.factor.damping * mean : value;
  };
  const auto at = [](const std::vector<float>& all, int64_t i, int64_t j) {
    return static_cast<double>(all[static_cast<size_t>(i * Problem::kColumns + j)]);
  };
  for (int64_t row = 0; row < Problem::kRows; ++row) {
    for (int64_t j = 0; j < Problem::kColumns; ++j) {
      double left = 0.0, right = 0.0;
      for (int64_t k = 0; k < Problem::kColumns; ++k) {
        left += at(z, row, k) * h(k, j);
        right += at(p.w, row, k) * at(p.shift, k, j);
      }
      // Floats of size 1 in sums of 288, solved with a condition of a few hundred.
      ASSERT_NEAR(left, right, 2e-4) << row << " " << j;
    }
  }
}

TEST(ShiftCorrections, AreTheSameForEverySplitAndOnEveryCpu) {
  const Problem p;
  const std::vector<float> whole = p.corrections(0, Problem::kRows);
  std::vector<float> pieces;
  for (const auto& [first, n] : {std::pair<int64_t, int64_t>{0, 3}, {3, 16}}) {
    const std::vector<float> part = p.corrections(first, n);
    pieces.insert(pieces.end(), part.begin(), part.end());
  }
  EXPECT_EQ(pieces, whole);
  for (int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    EXPECT_EQ(p.corrections(0, Problem::kRows), whole) << hwy::TargetName(rest & -rest);
    hwy::SetSupportedTargetsForTest(0);
  }
}

}  // namespace
}  // namespace quern
