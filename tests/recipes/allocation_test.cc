#include "recipes/allocation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace quern {
namespace {

struct Total {
  uint64_t bytes = 0;
  double loss = 0.0;
};

Total total(const std::vector<AllocationItem>& items, const std::vector<size_t>& chosen) {
  Total sum;
  for (size_t i = 0; i < items.size(); ++i) {
    sum.bytes += items[i][chosen[i]].size_bytes;
    sum.loss += items[i][chosen[i]].loss;
  }
  return sum;
}

// The least loss by trying everything.
double exhaustive(const std::vector<AllocationItem>& items, uint64_t budget) {
  std::vector<size_t> chosen(items.size());
  double best = 1e300;
  for (;;) {
    const Total sum = total(items, chosen);
    if (sum.bytes <= budget) best = std::min(best, sum.loss);
    size_t i = 0;
    while (i < items.size() && ++chosen[i] == items[i].size()) chosen[i++] = 0;
    if (i == items.size()) return best;
  }
}

// Tensors of very different sizes and sensitivities whose losses fall by about 4 per bit, as those of real ones do.
std::vector<AllocationItem> random_items(size_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<AllocationItem> items(n);
  for (AllocationItem& item : items) {
    const double weights = 100.0 * std::pow(30.0, uniform(engine)), sensitivity = std::pow(100.0, uniform(engine));
    for (const double bits : {2.0, 2.6, 3.4, 4.5, 8.5}) {
      item.push_back({static_cast<uint64_t>(weights * bits / 8.0), sensitivity * std::pow(4.0, -bits) * (0.7 + 0.6 * uniform(engine))});
    }
  }
  return items;
}

TEST(Allocation, FindsTheOptimumOfAFewTensors) {
  double worst = 1.0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const std::vector<AllocationItem> items = random_items(6, seed);
    const uint64_t smallest = smallest_allocation(items);
    for (const double factor : {1.0, 1.1, 1.4, 2.0, 4.0}) {
      const auto budget = static_cast<uint64_t>(factor * static_cast<double>(smallest));
      const auto chosen = allocate(items, budget);
      ASSERT_TRUE(chosen);
      const Total sum = total(items, *chosen);
      EXPECT_LE(sum.bytes, budget);
      worst = std::max(worst, sum.loss / exhaustive(items, budget));
    }
  }

  EXPECT_LE(worst, 1.001);
}

TEST(Allocation, RefusesWhatCannotFitAndTakesExactlyTheSmallest) {
  const std::vector<AllocationItem> items = random_items(5, 7);
  const uint64_t smallest = smallest_allocation(items);
  EXPECT_FALSE(allocate(items, smallest - 1));
  ASSERT_TRUE(allocate(items, smallest));
  EXPECT_EQ(total(items, *allocate(items, smallest)).bytes, smallest);
}

TEST(Allocation, NeverLosesMoreWithMoreRoom) {
  const std::vector<AllocationItem> items = random_items(40, 3);
  double before = 1e300;
  for (uint64_t budget = smallest_allocation(items); budget < 5 * smallest_allocation(items); budget += 2000) {
    const double loss = total(items, *allocate(items, budget)).loss;
    EXPECT_LE(loss, before * 1.02);
    before = loss;
  }
  EXPECT_EQ(*allocate(items, UINT64_MAX / 4), std::vector<size_t>(40, 4));
}

TEST(Allocation, LeavesChoicesThatAreBeatenInBothBytesAndLoss) {
  const std::vector<AllocationItem> items = {{{10, 5.0}, {20, 6.0}, {30, 1.0}}};
  EXPECT_EQ(*allocate(items, 25), std::vector<size_t>{0});
  EXPECT_EQ(*allocate(items, 30), std::vector<size_t>{2});
}

}  // namespace
}  // namespace quern
