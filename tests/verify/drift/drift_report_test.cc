#include "verify/drift/drift_report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/formats/expect_error.h"

namespace quern {
namespace {

DriftReport some_report() {
  DriftReport report{
      .original = "model", .text = "text.txt", .n_ctx = 8, .n_chunks = 2, .rows = {}, .warnings = {"a text with CR LF"}, .bytes_read = 7};
  for (const double scale : {1e-9, 0.1}) {
    DriftRow row{.name = scale < 1e-3 ? kNoiseFloorName : "a\"<b>.gguf", .size_bytes = 1000, .bits_per_weight = 4.5, .drift = {}};
    for (int i = 0; i < 6; ++i) row.drift.tokens.push_back({1.0 + i, 1.0, scale * i, 0.0, i % 2 == 0});
    row.drift.statistics = drift_statistics(row.drift.tokens);
    row.drift.expert_changes = {{3, 0.25}};
    report.rows.push_back(row);
  }
  return report;
}

TEST(KlHistogram, PutsEveryTokenIntoOneBin) {
  KlHistogram h;
  for (const double kl : {0.0, -1e-17, 9.9e-9, 1e-8, 0.1, 99.0, 1e3, std::numeric_limits<double>::infinity(), std::nan("")}) h.add(kl);
  EXPECT_EQ(h.below, 3u);
  EXPECT_EQ(h.above, 3u);
  EXPECT_EQ(h.counts[0], 1u);
  EXPECT_EQ(h.counts[79], 1u);
  EXPECT_EQ(h.total(), 9u);
  EXPECT_NEAR(KlHistogram::edge(8), 1e-7, 1e-20);
  for (size_t i = 0; i < KlHistogram::kBins; ++i) {
    KlHistogram one;
    one.add(std::sqrt(KlHistogram::edge(i) * KlHistogram::edge(i + 1)));
    EXPECT_EQ(one.counts[i], 1u) << i;
  }
}

TEST(DriftReport, ComesBackFromJson) {
  const DriftReport report = some_report();
  for (const DriftDetail detail : {DriftDetail::kSummary, DriftDetail::kTokens}) {
    const std::string text = drift_to_json(report, detail);
    EXPECT_EQ(text.find("\"tokens\"") == std::string::npos, detail == DriftDetail::kSummary);
    const DriftReport back = drift_from_json(text);
    EXPECT_EQ(back.warnings, std::vector<std::string>{"a text with CR LF"});
    EXPECT_EQ(back.text, "text.txt");
    EXPECT_EQ(back.n_chunks, 2);
    ASSERT_EQ(back.rows.size(), 2u);
    EXPECT_EQ(back.rows[1].name, "a\"<b>.gguf");
    EXPECT_EQ(drift_to_json(back, DriftDetail::kSummary), drift_to_json(report, DriftDetail::kSummary));
  }
}

TEST(DriftReport, KeepsNumbersThatAreNotFinite) {
  DriftReport report = some_report();
  report.rows[1].drift.statistics.kl.value = std::nan("");
  EXPECT_TRUE(std::isnan(drift_from_json(drift_to_json(report, DriftDetail::kSummary)).rows[1].drift.statistics.kl.value));
}

TEST(DriftReport, RefusesOtherFiles) {
  EXPECT_ERROR(drift_from_json("{}"), ErrorKind::kFormat, "not a drift report");
  EXPECT_ERROR(drift_from_json(R"({"schema": "quern.plan/1"})"), ErrorKind::kFormat, "schema is 'quern.plan/1', not quern.drift/1");
  std::string bins = drift_to_json(some_report(), DriftDetail::kSummary);
  bins.replace(bins.find("\"bins_per_decade\": 8"), 20, "\"bins_per_decade\": 9");
  EXPECT_ERROR(drift_from_json(bins), ErrorKind::kFormat, "other bins");
  const std::string good = drift_to_json(some_report(), DriftDetail::kSummary);
  for (size_t n = 0; n < good.size() - 2; n += 7) EXPECT_THROW(drift_from_json(good.substr(0, n)), Error) << n;
}

}  // namespace
}  // namespace quern
