#include "verify/report/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/formats/expect_error.h"
#include "tests/verify/well_formed.h"
#include "verify/report/report_figures.h"

namespace quern {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const std::string kHostile = "\"><script>alert('x')</script><img src=x onerror=y>&\x01\xff\xe2\x80\xae";

DriftRow measured(const std::string& name, uint64_t size_bytes, double kl, size_t n_tokens = 200) {
  DriftRow row{.name = name, .size_bytes = size_bytes, .bits_per_weight = 4.5, .drift = {}};
  for (size_t i = 0; i < n_tokens; ++i) {
    const double part = 2.0 * static_cast<double>(i + 1) / static_cast<double>(n_tokens + 1);  // mean 1
    row.drift.tokens.push_back(
        {3.0 + kl + 0.001 * static_cast<double>(i), 3.0 + 0.001 * static_cast<double>(i), kl * part, 0.0, i % 10 != 0});
  }
  row.drift.statistics = drift_statistics(row.drift.tokens);
  row.drift.expert_changes = {{0, 0.01}, {1, 0.5}};
  return row;
}

DriftReport three_builds() {
  return {.original = "/some/where/Tiny",
          .text = "wiki.txt",
          .n_ctx = 64,
          .n_chunks = 4,
          .rows = {measured(kNoiseFloorName, 0, 0.001), measured("Tiny-Q8_0.gguf", 9000, 0.0015), measured("Tiny-Q2_K.gguf", 3000, 0.3),
                   measured("Tiny-lossless.gguf", 8000, 0.0)},
          .warnings = {},
          .bytes_read = 0};
}

BuildRecord record_of(const std::string& file, double error) {
  BuildRecord record;
  record.quern_version = "1.2.3";
  record.recipe = record.label = "Q2_K";
  record.error = ErrorRecord{false, 1.0, error};
  record.files = {{file, 3000, std::string(64, 'a'), {}}};
  for (const char* name : {"token_embd.weight", "blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.0.attn_norm.weight"}) {
    TensorRecord tensor;
    tensor.name = name;
    tensor.type = DType::Q2_K;
    tensor.shape = Shape({4, 256});
    tensor.size_bytes = 4 * 84;
    tensor.error = ErrorRecord{tensor.name.ends_with("norm.weight"), 1.0, tensor.name.ends_with("norm.weight") ? 0.0 : error};
    record.tensors.push_back(tensor);
  }
  return record;
}

void expect_clean(const std::string& html) {
  EXPECT_EQ(WellFormed::problem(html), std::nullopt);
  for (const char* forbidden : {"<script", "<img", "http://", "https://", "onerror=y>", "=\"nan", "=\"inf", "<link"}) {
    std::string text = html;
    for (size_t at; (at = text.find("http://www.w3.org/2000/svg")) != std::string::npos;) text.erase(at, 26);  // a name, not an address
    EXPECT_EQ(text.find(forbidden), std::string::npos) << forbidden;
  }
}

TEST(Report, SaysWhichFileToTake) {
  const Report report = report_from_drift(three_builds(), {});
  ASSERT_EQ(report.builds.size(), 3u);
  EXPECT_EQ(report.model, "Tiny");
  EXPECT_EQ(report.builds[0].name, "Q2_K") << "small ones first, without what all names share";
  EXPECT_EQ(verdict(report.builds[0], report.noise_floor), "usable when memory leaves no choice");
  EXPECT_EQ(verdict(report.builds[1], report.noise_floor), "exactly the original");
  EXPECT_EQ(verdict(report.builds[2], report.noise_floor), "hard to tell from the original");
  EXPECT_EQ(better_choice(report, report.builds[2]), &report.builds[1]) << "lossless is smaller and exact";
  EXPECT_EQ(better_choice(report, report.builds[0]), nullptr);
  const std::string sentence = summary_sentence(report);
  EXPECT_NE(sentence.find("lossless (8.00 KB), is exactly the original."), std::string::npos) << sentence;
  EXPECT_NE(sentence.find("Q2_K (3.00 KB), is usable"), std::string::npos) << sentence;
}

TEST(Report, IsWellFormedCompleteAndTheSameEveryTime) {
  const Report report = report_from_drift(three_builds(), {record_of("Tiny-Q2_K.gguf", 0.2)});
  const std::string html = report_html(report);
  expect_clean(html);
  EXPECT_EQ(html, report_html(report));
  for (const char* part : {"Which file for which memory", "The files", "Size against loss", "Where the weights changed", "Experts",
                           "How to check it", "noise floor", "wiki.txt", "Q8_0 is left out: lossless is smaller and exact."}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(html.find("/some/where"), std::string::npos) << "folders of the machine it was made on";
}

TEST(Report, EscapesEveryNameAndText) {
  DriftReport drift = three_builds();
  drift.original = drift.text = kHostile;
  for (DriftRow& row : drift.rows) {
    if (row.name != kNoiseFloorName) row.name = kHostile + row.name;
  }
  BuildRecord record = record_of("x", 0.2);
  record.files.front().name = drift.rows[2].name.substr(drift.rows[2].name.rfind('/') + 1);
  record.recipe = kHostile;
  for (TensorRecord& tensor : record.tensors) tensor.name += kHostile;
  Report report = report_from_drift(drift, {record});
  report.model = report.base_model = report.revision = report.made_by = report.origin = kHostile;
  for (ReportBuild& build : report.builds) build.name += kHostile;
  report.inputs = {{kHostile, kHostile, kHostile}};
  expect_clean(report_html(report));
  Report other = report;
  other.text += "x";
  other.builds[0].name += "y";
  expect_clean(comparison_html(report, other));
}

TEST(Report, HoldsWithoutAnyAndWithExtremeFigures) {
  expect_clean(report_html(Report{}));
  expect_clean(comparison_html(Report{}, Report{}));
  for (const double kl : {0.0, -1e-17, 1e-300, 1e300, kInfinity, std::nan("")}) {
    DriftReport drift = three_builds();
    for (DriftRow& row : drift.rows) row = measured(row.name, row.size_bytes, 1.0, 1);
    for (DriftRow& row : drift.rows) {
      row.drift.statistics.kl = {kl, kl};
      row.drift.statistics.ppl = {kl, kl};
      row.drift.statistics.kl_slack = kl;
      row.drift.statistics.kl_histogram = {};
      row.drift.statistics.kl_histogram.add(kl);
      row.drift.expert_changes = {{std::numeric_limits<int64_t>::max(), kl}, {-1, kl}};
    }
    const Report report = report_from_drift(drift, {record_of("Tiny-Q2_K.gguf", kl)});
    expect_clean(report_html(report));
    expect_clean(comparison_html(report, report_from_drift(three_builds(), {})));
  }
}

TEST(Report, DrawsTensorsOfLayersOnly) {
  EXPECT_EQ(page::place_of("blk.12.attn_q.weight").layer, 12);
  EXPECT_EQ(page::place_of("blk.12.exp_probs_b.bias").role, "exp_probs_b.bias");
  for (const char* name : {"output.weight", "blk.", "blk.x.y", "blk.-1.y", "blk.99999999999999999999.y", "blk.1"}) {
    EXPECT_EQ(page::place_of(name).layer, -1) << name;
  }
  ReportBuild build;
  for (int i = 0; i < 5000; ++i) build.tensors.push_back({"blk.0.role" + std::to_string(i) + ".weight", "Q2_K", 1, false, 0.1});
  EXPECT_EQ(page::error_map(build, {0.1, 0.2}, 700.0), "") << "more kinds of tensors than a picture can hold";
}

TEST(Report, ComparesBuildsOfTheSameName) {
  Report before = report_from_drift(three_builds(), {record_of("Tiny-Q2_K.gguf", 0.2)});
  DriftReport changed = three_builds();
  changed.rows[2] = measured("Tiny-Q2_K.gguf", 3000, 0.1);
  changed.rows[3].name = "Tiny-BF16.gguf";
  Report after = report_from_drift(changed, {record_of("Tiny-Q2_K.gguf", 0.1)});
  before.origin = "old.json";
  after.origin = "new.json";
  const std::string html = comparison_html(before, after);
  expect_clean(html);
  EXPECT_NE(html.find("1 file is closer to the original, 1 not clearly different."), std::string::npos);
  EXPECT_NE(html.find("−67 % better"), std::string::npos);
  EXPECT_NE(html.find("3 tensors differ"), std::string::npos);
  EXPECT_NE(html.find("Only in old.json: lossless."), std::string::npos);
  EXPECT_EQ(html.find("cannot be compared"), std::string::npos);
  after.text = "other.txt";
  EXPECT_NE(comparison_html(before, after).find("on different texts: their losses cannot be compared"), std::string::npos);
}

TEST(Report, ComparesNoLossesThatWereNotMeasuredAlike) {
  Report before = report_from_drift(three_builds(), {}), after = before;
  after.builds[0].measured = measured("Tiny-Q2_K.gguf", 3000, 0.1);
  const std::string alike = comparison_html(before, after);
  EXPECT_NE(alike.find("−67 % better"), std::string::npos);
  after.text = "other.txt";
  DriftStatistics& s = after.builds[0].measured->drift.statistics;
  for (const bool same_name : {false, true}) {
    if (same_name) {
      after.text = before.text;
      s.ppl_original.value *= 1.5;
    }
    const std::string html = comparison_html(before, after);
    expect_clean(html);
    EXPECT_NE(html.find("their losses cannot be compared"), std::string::npos) << same_name;
    for (const char* verdict : {"% better", "% worse", "closer to the original", "Size against loss"})
      EXPECT_EQ(html.find(verdict), std::string::npos) << verdict;
  }
}

TEST(Report, JudgesNeitherTriflesNorErrorsThatFeedbackTrades) {
  Report before = report_from_drift(three_builds(), {record_of("Tiny-Q2_K.gguf", 0.2)}), after = before;
  after.builds[0].size_bytes += 2;  // 0.07 %
  EXPECT_EQ(comparison_html(before, after).find("larger"), std::string::npos);
  after.builds[0].size_bytes += 2;
  EXPECT_NE(comparison_html(before, after).find("▴ +0.13 % larger"), std::string::npos);
  after = report_from_drift(three_builds(), {record_of("Tiny-Q2_K.gguf", 0.3)});
  EXPECT_NE(comparison_html(before, after).find("+50 % worse"), std::string::npos);
  after.builds[0].feedback = FeedbackFacts{"original", "text.txt", 512};
  EXPECT_EQ(comparison_html(before, after).find("+50 % worse"), std::string::npos);
}

TEST(Report, HasCommandsThatPaste) {
  Report report = report_from_drift(three_builds(), {});
  report.has_manifest = true;
  report.text = "it's mine; rm -rf x.txt";
  std::string html = report_html(report);
  EXPECT_NE(html.find("<pre>sha256sum -c SHA256SUMS\nquern verify .</pre>"), std::string::npos);
  EXPECT_NE(html.find("--eval-text &#39;it&#39;\\&#39;&#39;s mine; rm -rf x.txt&#39; --ctx 64"), std::string::npos);
  report.key_id = "deb2";
  report.builds[0].feedback = FeedbackFacts{"sequential", "calib.txt", 512};
  html = report_html(report);
  expect_clean(html);
  EXPECT_NE(html.find("\nquern verify . --key PUB.pem</pre>"), std::string::npos);
  EXPECT_NE(html.find("--sample 5% --calib-text calib.txt</pre>"), std::string::npos);
  EXPECT_NE(html.find("Q2_K is encoded with error feedback, layer after layer"), std::string::npos);
}

TEST(Report, LinksFilesWhereItLiesBesideThem) {
  Report report = report_from_drift(three_builds(), {record_of("Q2_K/Tiny-Q2_K.gguf", 0.2)});
  EXPECT_EQ(report_html(report).find("<a "), std::string::npos);
  report.beside_files = true;
  const std::string html = report_html(report);
  expect_clean(html);
  EXPECT_NE(html.find("<th scope=\"row\"><a href=\"./Q2_K/Tiny-Q2_K.gguf\">"), std::string::npos);
}

TEST(Report, NamesWhatTheFilesAreOf) {
  Manifest manifest;
  manifest.builds = {record_of("Tiny-Q2_K.gguf", 0.2)};
  EXPECT_EQ(report_from_manifest(manifest).model, "Tiny") << "not the first build";
  EXPECT_EQ(summary_sentence(report_from_manifest(manifest)), "How much the files differ from the original was not measured.");
  manifest.drift = drift_to_json(three_builds(), DriftDetail::kSummary);
  EXPECT_EQ(report_from_manifest(manifest).model, "Tiny");
  manifest.base_model = "maker/Tiny-Model";
  EXPECT_EQ(report_from_manifest(manifest).model, "Tiny-Model");
}

TEST(Report, CountsExpertsThatCalibrationMissed) {
  Imatrix imatrix;
  imatrix.chunk_size = 512;
  imatrix.entries = {{"blk.0.attn_q.weight", 2, 1, {1, 1}, {5}},
                     {"blk.3.ffn_down_exps.weight", 1, 4, {1, 1, 1, 1}, {0, 300, 100, 200}},
                     {"blk.3.ffn_up_exps.weight", 1, 4, {1, 1, 1, 1}, {0, 300, 100, 200}}};
  const std::vector<ExpertCoverage> coverage = expert_coverage(imatrix);
  ASSERT_EQ(coverage.size(), 1u);
  EXPECT_EQ(coverage[0].layer, 3);
  EXPECT_EQ(coverage[0].n_unseen, 1);
  EXPECT_EQ(coverage[0].n_few, 2);
  EXPECT_EQ(coverage[0].median_tokens, 150.0);
  Report report = report_from_drift(three_builds(), {});
  report.coverage = coverage;
  EXPECT_NE(report_html(report).find("never reached 1 of 4 experts in 1 layer, and 1 more"), std::string::npos);
  imatrix.format = ImatrixFormat::kDat;
  EXPECT_TRUE(expert_coverage(imatrix).empty()) << "chunks say nothing of experts";
}

TEST(Report, TakesManifestsAndMatchesTheirMeasurements) {
  Manifest manifest;
  manifest.quern_version = "1.2.3";
  manifest.base_model = "maker/Tiny-Model";
  manifest.revision = "abc";
  manifest.builds = {record_of("Q2_K/Tiny-Q2_K.gguf", 0.2)};
  manifest.inputs = {{"imatrix", "imatrix.gguf", 5, std::string(64, 'b')}};
  manifest.drift = drift_to_json(three_builds(), DriftDetail::kSummary);
  const Report report = report_from_manifest(manifest);
  EXPECT_EQ(report.model, "Tiny-Model");
  ASSERT_EQ(report.builds.size(), 1u);
  EXPECT_EQ(report.builds[0].name, "Q2_K");
  ASSERT_TRUE(report.builds[0].measured);
  EXPECT_NEAR(report.builds[0].measured->drift.statistics.kl.value, 0.3, 1e-9);
  const std::string html = report_html(report);
  expect_clean(html);
  EXPECT_NE(html.find("sha256sum -c SHA256SUMS"), std::string::npos);
  EXPECT_NE(html.find("maker/Tiny-Model"), std::string::npos);
}

}  // namespace
}  // namespace quern
