#include "verify/drift/drift.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "formats/base/error.h"
#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"
#include "tests/runtime/golden_v4.h"
#include "verify/drift/base_file.h"
#include "verify/drift/drift_job.h"
#include "verify/drift/reference_file.h"

namespace quern {
namespace {

std::vector<float> random_logits(size_t n, double spread, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0.0, spread);
  std::vector<float> logits(n);
  for (float& z : logits) z = static_cast<float>(normal(engine));
  return logits;
}

std::vector<double> log_probs_of(std::span<const float> logits) {
  std::vector<double> p;
  log_softmax(logits, p);
  return p;
}

constexpr double kNoFloor = -std::numeric_limits<double>::infinity();

TEST(DriftStatistics, FollowTheFormulasOfTheSpecification) {
  // Three tokens are below the ten that errors need, so errors are zero except for the share.
  const std::vector<TokenDrift> few = {{1.0, 0.5, 0.1, 0.0, true}, {2.0, 2.5, 0.3, 0.0, false}, {3.0, 2.0, 0.2, 0.0, true}};
  const DriftStatistics s = drift_statistics(few);
  EXPECT_DOUBLE_EQ(s.ppl.value, std::exp(2.0));
  EXPECT_DOUBLE_EQ(s.ln_ratio.value, 2.0 - 5.0 / 3.0);
  EXPECT_DOUBLE_EQ(s.kl_median, 0.2);
  EXPECT_NEAR(s.kl_90, 0.28, 1e-12);
  EXPECT_DOUBLE_EQ(s.same_top.value, 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(s.same_top.error, std::sqrt(2.0 / 9.0 / 2.0));
  EXPECT_EQ(s.ppl.error, 0.0);
  const double dp0 = std::exp(-1.0) - std::exp(-0.5), dp1 = std::exp(-2.0) - std::exp(-2.5), dp2 = std::exp(-3.0) - std::exp(-2.0);
  EXPECT_NEAR(s.rms_probability_change.value, std::sqrt((dp0 * dp0 + dp1 * dp1 + dp2 * dp2) / 3.0), 1e-15);
}

TEST(DriftStatistics, PairedErrorsVanishForEqualModels) {
  std::vector<TokenDrift> tokens;
  for (int i = 0; i < 50; ++i) tokens.push_back({0.1 * i, 0.1 * i, 0.0, 0.0, true});
  const DriftStatistics s = drift_statistics(tokens);
  EXPECT_GT(s.ppl.error, 0.0);
  EXPECT_NEAR(s.ln_ratio.error, 0.0, 1e-9);
  EXPECT_EQ(s.kl.value, 0.0);
  EXPECT_EQ(s.same_top.error, 0.0);
}

TEST(Drift, DivergenceOfAModelFromItselfIsExactlyZero) {
  const GoldenV4 golden;
  OriginalModel original(golden.main, {}, {{GoldenV4::tokens()}}, true, no_progress());
  const ModelDrift same = measure_drift(golden.main, {}, original, no_progress());
  for (const TokenDrift& token : same.tokens) {
    EXPECT_EQ(token.kl, 0.0);
    EXPECT_EQ(token.nll, token.nll_original);
    EXPECT_TRUE(token.same_top);
  }
  EXPECT_EQ(same.expert_changes.size(), 4u);
  for (const ExpertChange& change : same.expert_changes) EXPECT_EQ(change.share, 0.0);
  const ModelDrift noise = original.noise_floor();
  EXPECT_GT(noise.statistics.kl.value, 0.0);
  EXPECT_LT(noise.statistics.kl.value, 0.05);
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A NaN compares with nothing, so a maximum, a sort or a sum with a floor could leave it out.
TEST(DriftStatistics, HaveNaNWhereATokenHas) {
  std::vector<TokenDrift> tokens(40, {1.0, 1.0, 0.25, 0.0, true});
  EXPECT_TRUE(is_finite(drift_statistics(tokens)));
  for (const size_t at : {size_t{0}, size_t{17}, size_t{39}}) {
    std::vector<TokenDrift> bad = tokens;
    bad[at].kl = kNan;
    const DriftStatistics s = drift_statistics(bad);
    EXPECT_FALSE(is_finite(s));
    for (const double value : {s.kl.value, s.kl.error, s.kl_min, s.kl_median, s.kl_99, s.kl_max}) EXPECT_TRUE(std::isnan(value));
    bad = tokens;
    bad[at].nll = kNan;
    EXPECT_FALSE(is_finite(drift_statistics(bad)));
    bad = tokens;
    bad[at].kl_slack = kNan;
    EXPECT_FALSE(is_finite(drift_statistics(bad)));
  }
}

TEST(DriftStatistics, OfDistributionsThatAreNoneAreNaN) {
  const std::vector<double> good = log_probs_of(random_logits(8, 1.0, 1));
  for (const size_t at : {size_t{0}, size_t{5}}) {
    std::vector<double> bad = good;
    bad[at] = kNan;
    for (const double floor : {kNoFloor, -16.0}) {
      EXPECT_TRUE(std::isnan(compare_distributions(bad, good, 3, floor).kl));
      EXPECT_TRUE(std::isnan(compare_distributions(good, bad, 3, floor).kl));
      EXPECT_FALSE(compare_distributions(bad, good, 3, floor).same_top);
    }
  }
  std::vector<float> logits = random_logits(8, 1.0, 1);
  logits[6] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(log_probs_of(logits)[0]));
}

TEST(Drift, WorseThanChanceIsNoRounding) {
  DriftStatistics s;
  s.ppl_original.value = 20;
  s.ppl.value = 400;
  EXPECT_EQ(worse_than_chance(s, 512), "");
  s.ppl.value = 600;
  EXPECT_THAT(worse_than_chance(s, 512), testing::HasSubstr("worse than chance"));
  s.ppl_original.value = 700;
  EXPECT_EQ(worse_than_chance(s, 512), "");
}

TEST(Drift, RefusesAnotherVocabulary) {
  const GoldenV4 golden;
  OriginalModel original(golden.main, {}, {{GoldenV4::tokens()}}, false, no_progress());
  MemorySource other;
  other.metadata() = golden.main.metadata();
  for (const LogicalTensor& tensor : golden.main.tensors()) {
    GoldenV4 copy;
    std::vector<float> values = copy.main.values(tensor.name);
    Shape shape = tensor.shape;
    if (tensor.name == "output.weight") {
      values.resize(63 * 16);
      shape = Shape{63, 16};
    }
    other.add(tensor.name, shape, std::move(values));
  }
  EXPECT_THROW(measure_drift(other, {}, original, no_progress()), Error);
}

TEST(BaseFile, RowsKeepProbabilitiesWithinTheStep) {
  for (const size_t n : {7u, 512u}) {
    const std::vector<float> logits = random_logits(n, 1.5, 5);
    std::vector<std::byte> row(2 * (2 * ((n + 1) / 2) + 4));
    encode_base_row(logits, row);
    std::vector<double> decoded(n);
    decode_base_row(row, decoded);
    const std::vector<double> exact = log_probs_of(logits);
    for (size_t i = 0; i < n; ++i) EXPECT_NEAR(decoded[i], exact[i], 16.0 / 65535.0);
  }
}

TEST(ReferenceRow, BoundsHoldForEveryCut) {
  const size_t n = 400;
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    const std::vector<float> p_logits = random_logits(n, seed % 2 == 0 ? 1.0 : 3.0, seed);
    std::vector<float> q_logits = p_logits;
    const std::vector<float> noise = random_logits(n, seed % 3 == 0 ? 1.0 : 0.1, seed + 1000);
    for (size_t i = 0; i < n; ++i) q_logits[i] += noise[i];
    const std::vector<double> p = log_probs_of(p_logits), q = log_probs_of(q_logits);
    const TokenDrift exact = compare_distributions(p, q, 3, kNoFloor);
    for (const int64_t n_top : {1, 20, 200, 400}) {
      const TokenDrift cut = compare_cut(cut_row(p, 3, n_top), q, 3);
      EXPECT_LE(cut.kl, exact.kl + 1e-6) << n_top;
      EXPECT_GE(cut.kl + cut.kl_slack, exact.kl - 1e-6) << n_top;
      EXPECT_EQ(cut.same_top, exact.same_top);
      EXPECT_EQ(cut.nll_original, exact.nll_original);
      if (n_top == 400) {
        EXPECT_EQ(cut.kl_slack, 0.0);
      }
    }
  }
}

TEST(ReferenceRow, ThatIsNoDistributionIsSeen) {
  const std::vector<double> p = log_probs_of(random_logits(400, 2.0, 9));
  for (const int64_t n_top : {20, 400}) EXPECT_EQ(why_no_distribution(cut_row(p, 3, n_top), 400, 3), "");
  const auto why = [&](const std::function<void(ReferenceRow&)>& change) {
    ReferenceRow row = cut_row(p, 3, 20);
    change(row);
    return why_no_distribution(row, 400, 3);
  };
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(why([&](ReferenceRow& row) { row.log_probs[4] = nan; }), "");
  EXPECT_NE(why([&](ReferenceRow& row) { row.log_probs[0] = 0.5f; }), "");
  EXPECT_THAT(why([](ReferenceRow& row) { row.log_probs[0] -= 1.0f; }), testing::HasSubstr("not sorted"));
  EXPECT_THAT(why([](ReferenceRow& row) { row.ids[2] = row.ids[1]; }), testing::HasSubstr("stands in it twice"));
  EXPECT_THAT(why([](ReferenceRow& row) { row.ids[2] = 400; }), testing::HasSubstr("outside the vocabulary"));
  EXPECT_THAT(why([](ReferenceRow& row) { row.tail_mass += 0.5; }), testing::HasSubstr("add up to 1.5"));
  EXPECT_NE(why([](ReferenceRow& row) { row.tail_mass = kNan; }), "");
  EXPECT_NE(why([](ReferenceRow& row) { row.tail_mass = -row.tail_mass; }), "");
  EXPECT_NE(why([](ReferenceRow& row) { row.tail_sum = kNan; }), "");
  EXPECT_NE(why([](ReferenceRow& row) { row.nll = kNan; }), "");
}

TEST(BaseFile, RowsThatAreNoDistributionsAreSeen) {
  std::vector<double> p = log_probs_of(random_logits(512, 2.0, 9));
  EXPECT_EQ(why_no_distribution(p), "");
  p[3] = 0.0;
  EXPECT_THAT(why_no_distribution(p), testing::HasSubstr("and not to 1"));
  p[3] = kNan;
  EXPECT_NE(why_no_distribution(p), "");
}

class ReferenceFiles : public testing::Test {
 protected:
  test::TempDir folder_;
};

TEST_F(ReferenceFiles, GiveTheDriftThatTheModelItselfGives) {
  const GoldenV4 golden;
  GoldenV4 changed;
  for (float& w : changed.main.values("blk.1.attn_output_b.weight")) w *= 1.1f;
  OriginalModel original(golden.main, {}, {{GoldenV4::tokens()}}, false, no_progress());
  const ModelDrift direct = measure_drift(changed.main, {}, original, no_progress());
  ASSERT_GT(direct.statistics.kl.value, 1e-6);

  const std::filesystem::path h5 = folder_ / "ref.h5", base = folder_ / "ref.base";
  write_reference_file(h5, original, {.model = "golden", .bos_first = false, .tokens_sha256 = "abc"}, OutputFile::Overwrite::kRefuse);
  EXPECT_THROW(write_reference_file(h5, original, {}, OutputFile::Overwrite::kRefuse), Error);
  ReferenceFile stored(h5);
  EXPECT_EQ(stored.chunks()[0].tokens, GoldenV4::tokens());
  EXPECT_EQ(stored.tokens_sha256(), "abc");
  const ModelDrift from_h5 = measure_drift(changed.main, {}, stored, no_progress());
  EXPECT_NEAR(from_h5.statistics.kl.value, direct.statistics.kl.value, 1e-6);
  EXPECT_EQ(from_h5.statistics.kl_slack, 0.0);  // 64 tokens fit in full
  EXPECT_EQ(from_h5.statistics.ppl_original.value, direct.statistics.ppl_original.value);

  write_base_file(base, original, GoldenV4::tokens(), OutputFile::Overwrite::kRefuse);
  EXPECT_TRUE(is_base_file(base));
  EXPECT_FALSE(is_base_file(h5));
  BaseFile llama(base, std::nullopt);
  const ModelDrift from_base = measure_drift(changed.main, {}, llama, no_progress());
  EXPECT_NEAR(from_base.statistics.kl.value, direct.statistics.kl.value, 1e-4);
}

TEST_F(ReferenceFiles, WithRowsThatAreNoDistributionsAreRefused) {
  const GoldenV4 golden;
  OriginalModel original(golden.main, {}, {{GoldenV4::tokens()}}, false, no_progress());
  const std::filesystem::path base = folder_ / "ref.base";
  write_base_file(base, original, GoldenV4::tokens(), OutputFile::Overwrite::kRefuse);
  std::vector<std::byte> bytes = read_file(base, 1 << 28);
  const size_t last_row = bytes.size() - 2 * (64 + 4);  // 64 tokens
  for (const float scale : {std::numeric_limits<float>::quiet_NaN(), 1.0f}) {
    store_le(bytes.data() + last_row, scale);
    test::write_bytes(base, bytes);
    BaseFile damaged(base, std::nullopt);
    EXPECT_ERROR(measure_drift(golden.main, {}, damaged, no_progress()), ErrorKind::kFormat,
                 "is no distribution: its probabilities add up to");
  }
}

TEST_F(ReferenceFiles, RefuseWhatTheyDoNotKnow) {
  const std::filesystem::path path = folder_ / "broken";
  write_file_atomically(path, "_logits_ and then too little", OutputFile::Overwrite::kRefuse);
  EXPECT_THROW(BaseFile(path, std::nullopt), Error);
  EXPECT_THROW(ReferenceFile{path}, Error);
  EXPECT_THROW(ReferenceFile{folder_ / "absent"}, Error);
}

TEST(Chunks, AreCutAsLlamaPerplexityCutsThem) {
  std::vector<int32_t> tokens(35);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  const std::vector<Sequence> chunks = make_chunks(tokens, 10, 0, 99);
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(chunks[1].tokens, (std::vector<int32_t>{99, 11, 12, 13, 14, 15, 16, 17, 18, 19}));
  EXPECT_EQ(make_chunks(tokens, 10, 2, std::nullopt).size(), 2u);
  EXPECT_EQ(make_chunks(tokens, 30, 1, std::nullopt).size(), 1u);
  EXPECT_ERROR(make_chunks(tokens, 30, 0, std::nullopt), ErrorKind::kUsage, "35 tokens, fewer than two chunks of 30; use a longer text");
  EXPECT_ERROR(make_chunks(tokens, 64, 1, std::nullopt), ErrorKind::kUsage, "35 tokens, fewer than a chunk of 64");
}

}  // namespace
}  // namespace quern
