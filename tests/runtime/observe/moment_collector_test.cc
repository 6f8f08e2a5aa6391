#include "runtime/observe/moment_collector.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/formats/builders.h"

namespace quern {
namespace {

constexpr int64_t kColumns = 6;

std::vector<float> inputs(int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<size_t>(n * kColumns));
  for (float& x : rows) x = normal(random);
  return rows;
}

// Sums by the definition over the rows that are not held out: panels of 16, the eighth of every eight is.
std::vector<double> expected_mean(const std::vector<float>& rows, const std::vector<float>& shares) {
  std::vector<double> sums(half_position(kColumns, 0));
  double n = 0;
  for (size_t t = 0; t < rows.size() / kColumns; ++t) {
    if (t / 16 % 8 == 7) continue;
    ++n;
    const double share = shares.empty() ? 1.0 : static_cast<double>(shares[t]);
    for (int64_t i = 0; i < kColumns; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        sums[half_position(i, j)] += share * share * static_cast<double>(rows[t * kColumns + static_cast<size_t>(i)]) *
                                     static_cast<double>(rows[t * kColumns + static_cast<size_t>(j)]);
      }
    }
  }
  for (double& sum : sums) sum /= n;
  return sums;
}

void expect_near(const SecondMoment& moment, const std::vector<double>& expected) {
  ASSERT_EQ(moment.half.size(), expected.size());
  for (size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(moment.half[k], expected[k], 1e-5) << k;
}

TEST(MomentCollector, TakesTheMeanOfProductsAndKeepsSomeRowsApart) {
  const test::TempDir folder;
  const std::vector<float> rows = inputs(300, 1);
  {
    StatisticsWriter writer(folder.path(), OutputFile::Overwrite::kRefuse);
    MomentCollector collector(writer, [](std::string_view name) { return name != "unwanted"; });
    const std::string_view names[] = {"blk.0.attn_q.weight", "blk.0.attn_k.weight"};
    const std::string_view unwanted[] = {"unwanted"};
    const PackedRows first(rows.data(), 160, kColumns, kColumns);
    const PackedRows second(rows.data() + 160 * kColumns, 140, kColumns, kColumns);
    collector.observe({unwanted, -1, &first, {}});
    collector.observe({names, -1, &first, {}});
    collector.observe({names, -1, &second, {}});
    collector.finish();
    writer.finish({});
  }
  Statistics statistics(folder.path());
  EXPECT_EQ(statistics.find("unwanted"), nullptr);
  const std::shared_ptr<const StatisticsInput> input = statistics.find("blk.0.attn_k.weight");
  ASSERT_NE(input, nullptr);
  const InputStatistics loaded = load_statistics(*input, kWholeWeight);
  EXPECT_EQ(loaded.moment.n_rows, 300 - 32);
  EXPECT_EQ(loaded.held.n_rows(), 32);
  EXPECT_EQ(loaded.held.rows[0], rows[7 * 16 * kColumns]);
  expect_near(loaded.moment, expected_mean(rows, {}));
}

TEST(MomentCollector, WeighsRowsOfExpertsAndAddsTheExpertsUp) {
  const test::TempDir folder;
  const std::vector<float> rows[] = {inputs(100, 2), inputs(40, 3)};
  std::vector<float> shares[2];
  for (size_t e = 0; e < 2; ++e) {
    for (size_t t = 0; t < rows[e].size() / kColumns; ++t) shares[e].push_back(0.1f + 0.005f * static_cast<float>(t));
  }
  {
    StatisticsWriter writer(folder.path(), OutputFile::Overwrite::kRefuse);
    MomentCollector collector(writer, [](std::string_view) { return true; });
    const std::string_view names[] = {"blk.0.ffn_down_exps.weight"};
    for (size_t e = 0; e < 2; ++e) {
      const PackedRows packed(rows[e].data(), static_cast<int64_t>(shares[e].size()), kColumns, kColumns);
      collector.observe({names, static_cast<int64_t>(3 * e), &packed, shares[e]});
    }
    collector.finish();
    writer.finish({});
  }
  Statistics statistics(folder.path());
  const std::shared_ptr<const StatisticsInput> input = statistics.find("blk.0.ffn_down_exps.weight");
  ASSERT_NE(input, nullptr);
  ASSERT_EQ(input->slices.size(), 3u);
  const std::vector<double> first = expected_mean(rows[0], shares[0]);
  const std::vector<double> second = expected_mean(rows[1], shares[1]);
  expect_near(load_statistics(*input, 0).moment, first);
  expect_near(load_statistics(*input, 3).moment, second);
  std::vector<double> all;
  for (size_t k = 0; k < first.size(); ++k) all.push_back((100 * first[k] + 40 * second[k]) / 140);
  expect_near(load_statistics(*input, kWholeWeight).moment, all);
}

// In sequential mode rows come in pairs: x' of the build, x of the original.
TEST(MomentCollector, TakesTheMeanOfShiftsInSequentialMode) {
  const test::TempDir folder;
  const std::vector<float> build = inputs(160, 4), original = inputs(160, 5);
  std::vector<float> shares;
  for (size_t t = 0; t < 160; ++t) shares.push_back(0.2f + 0.004f * static_cast<float>(t));
  StatisticsWriter writer(folder.path(), OutputFile::Overwrite::kRefuse);
  MomentCollector collector(
      writer, [](std::string_view) { return true; },
      [&](const ObservedInput& seen) { return PackedRows(original.data(), seen.rows->n_rows(), kColumns, kColumns); });
  const std::string_view names[] = {"blk.0.ffn_down_exps.weight"};
  const PackedRows packed(build.data(), 160, kColumns, kColumns);
  collector.observe({names, 0, &packed, shares});
  const InputStatistics loaded = load_statistics(*collector.finish().front().input, 0);
  ASSERT_EQ(loaded.moment.n_rows, 144);  // the eighth panel is held out
  ASSERT_EQ(loaded.held.n_rows(), 16);
  for (int64_t i = 0; i < kColumns; ++i) {
    for (int64_t j = 0; j < kColumns; ++j) {
      double mean = 0.0;
      for (int64_t t = 0; t < 160; ++t) {
        if (t / 16 == 7) continue;
        const double share = shares[static_cast<size_t>(t)];
        const auto at = [&](const std::vector<float>& rows, int64_t column) {
          return static_cast<double>(rows[static_cast<size_t>(t * kColumns + column)]);
        };
        mean += share * share * (at(original, i) - at(build, i)) * at(build, j) / 144.0;
      }
      EXPECT_NEAR(loaded.shift[static_cast<size_t>(i * kColumns + j)], mean, 1e-5) << i << " " << j;
    }
  }
  EXPECT_FLOAT_EQ(loaded.held_original.rows[1], shares[112] * original[112 * kColumns + 1]);
}

}  // namespace
}  // namespace quern
