#include "verify/fit/fit.h"
#include "convert/plan/make_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>

#include "convert/convert.h"
#include "convert/plan/plan.h"
#include "convert/plan/planned_build.h"
#include "formats/base/error.h"
#include "formats/model/model_facts.h"
#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"
#include "tests/runtime/memory_source.h"
#include "tests/verify/goldens.h"
#include "verify/drift/drift.h"

namespace quern {
namespace {

std::filesystem::path bundled(const std::string& name) { return std::filesystem::path(QUERN_TEST_DATA) / "models" / name; }

// A miniature with its chunks and everything that measuring needs.
struct Fixture {
  explicit Fixture(const std::string& name)
      : path(bundled(name)), source(open_model(path)), goldens(path), encoder(*source), cache(uint64_t{1} << 28) {
    for (const Sequence& chunk : goldens.chunks) chunks.push_back({{chunk.tokens.begin(), chunk.tokens.begin() + 48}, false});
    chunks.resize(2);
  }

  std::filesystem::path path;
  std::unique_ptr<ModelSource> source;
  Goldens goldens;
  TensorEncoder encoder;
  BlockCache cache;
  std::vector<Sequence> chunks;
};

Plan plan_of(const Fixture& f, const std::string& mix, const std::filesystem::path& folder) {
  PlanOptions options;
  options.output = folder;
  options.types = {mix};
  std::vector<Problem> problems;
  Plan plan = make_plan(*f.source, f.path, options, problems);
  EXPECT_TRUE(problems.empty());
  return plan;
}

TypeAssignment types_of(const Plan& plan) {
  TypeAssignment types;
  for (const Placement& placement : plan.outputs.front().tensors) types.push_back(placement.type);
  return types;
}

class SimulatedBuild : public testing::TestWithParam<const char*> {};

// The promise of `drift --simulate`: what is measured without a file is what the file would give, to the last bit.
TEST_P(SimulatedBuild, HasExactlyTheDriftOfTheWrittenFile) {
  Fixture f(GetParam());
  const test::TempDir folder;
  const Plan plan = plan_of(f, "Q2_K", folder / "out");
  run_plan(*f.source, plan, no_progress());
  const std::unique_ptr<ModelSource> written = open_model(folder / "out" / plan.outputs.front().files.front().name);
  OriginalModel original(*f.source, {}, f.chunks, false, no_progress());
  const ModelDrift of_file = measure_drift(*written, {}, original, no_progress());

  const SimulatedSource simulated(*f.source, types_of(plan), f.encoder, nullptr);
  const ModelDrift drift = measure_drift(simulated, {}, original, no_progress());
  SimulatedBuilds builds(*f.source, f.encoder, f.cache, {}, f.chunks, 24, no_progress());
  const std::vector<std::vector<double>> kl = builds.measure(std::vector<TypeAssignment>{types_of(plan)}, no_progress());
  ASSERT_EQ(drift.tokens.size(), of_file.tokens.size());
  ASSERT_EQ(kl.front().size(), of_file.tokens.size());
  EXPECT_GT(of_file.statistics.kl.value, 1e-4);
  for (size_t i = 0; i < of_file.tokens.size(); ++i) {
    EXPECT_EQ(drift.tokens[i].kl, of_file.tokens[i].kl) << i;
    EXPECT_EQ(kl.front()[i], of_file.tokens[i].kl) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Miniatures, SimulatedBuild, testing::Values("mini-qwen3moe", "mini-v3", "mini-v4"));

// Encodings of checkpoints have sizes of their own, tables of integers too: neither shows in what is said of a build.
TEST_P(SimulatedBuild, HasTheBitsPerWeightOfTheWrittenFile) {
  const Fixture f(GetParam());
  const test::TempDir folder;
  const Plan plan = plan_of(f, "Q4_K_M", folder / "out");
  run_plan(*f.source, plan, no_progress());
  const std::unique_ptr<ModelSource> written = open_model(folder / "out" / plan.outputs.front().files.front().name);
  const PlannedBuild build = plan_builds(*f.source, f.path, {}, {"Q4_K_M"}).front();
  EXPECT_DOUBLE_EQ(bits_per_weight(*f.source, build), bits_per_weight(*written));
}

// Sharing states and reads among builds must not show in any result.
TEST(SimulatedBuilds, AreMeasuredTogetherAsEachAlone) {
  Fixture f("mini-v4");
  const Sensitivities s = measure_errors(*f.source, f.encoder, no_progress());
  SimulatedBuilds builds(*f.source, f.encoder, f.cache, {}, f.chunks, 24, no_progress());
  std::vector<TypeAssignment> all = {exact_assignment(s)};
  for (size_t i = 0; i < s.candidates.size(); ++i) {
    if (s.candidates[i].size() < 2 || i % 5 != 0) continue;
    all.push_back(all.front());
    all.back()[i] = s.candidates[i].front();
  }
  all.push_back(all.back());
  ASSERT_GT(all.size(), 5u);
  const auto together = builds.measure(all, no_progress());
  EXPECT_EQ(together.back(), together[together.size() - 2]);
  for (size_t i = 0; i < all.size(); i += 2) EXPECT_EQ(together[i], builds.measure(std::span(&all[i], 1), no_progress()).front()) << i;
  EXPECT_EQ(builds.cost(std::span(all).first(1)), builds.n_layers() + 1);
  EXPECT_LT(builds.cost(all), static_cast<int64_t>(all.size()) * (builds.n_layers() + 1));
}

TEST(Sensitivities, GiveEveryTensorTypesOfItsWidthAndNothingToTheKeepList) {
  const Fixture f("mini-v4");
  for (size_t i = 0; i < f.source->tensors().size(); ++i) {
    const LogicalTensor& tensor = f.source->tensors()[i];
    const std::vector<DType> types = candidate_types(*f.source, i);
    EXPECT_TRUE(tensor.keep == Keep::kMix || types.size() == 1u) << tensor.name;
    for (const DType type : types) EXPECT_EQ(tensor.shape.row_length() % traits(type).block_weights, 0) << tensor.name;
    for (size_t c = 1; c < types.size(); ++c) EXPECT_LE(bits_per_weight(types[c - 1]), bits_per_weight(types[c]));
  }
}

TEST(Sensitivities, OfWeightsThatAreNotFiniteAreRefused) {
  MemorySource source;
  std::vector<float> values(128, 0.5f);
  values[77] = std::numeric_limits<float>::quiet_NaN();
  source.add("blk.0.ffn_up.weight", Shape{2, 64}, values);
  EXPECT_ERROR(measure_errors(source, TensorEncoder(source), no_progress()), ErrorKind::kFormat, "tensor 'blk.0.ffn_up.weight'");
}

TEST(Sensitivities, AreWrittenAndReadAndDamageIsRefused) {
  Fixture f("mini-qwen3moe");
  Sensitivities s = measure_errors(*f.source, f.encoder, no_progress());
  const std::vector<TypeAssignment> builds = probe_builds(*f.source, s, 6);
  EXPECT_LE(builds.size(), 12u);  // never fewer groups than names of tensors
  std::vector<std::vector<double>> kl;
  for (size_t i = 0; i < builds.size(); ++i) kl.push_back({0.01 * static_cast<double>(i + 1), 0.02});
  set_probe_results(s, kl);
  const std::string text = sensitivities_to_json(s, *f.source, "key");
  const Sensitivities again = sensitivities_from_json(text, *f.source, "key");
  EXPECT_EQ(again.candidates, s.candidates);
  EXPECT_EQ(again.groups, s.groups);
  EXPECT_EQ(expected_losses(again), expected_losses(s));
  EXPECT_THROW(sensitivities_from_json(text, *f.source, "other key"), Error);
  for (size_t n = 0; n + 2 < text.size(); n += 97)
    EXPECT_THROW(sensitivities_from_json(std::string_view(text).substr(0, n), *f.source, "key"), Error) << n;
}

TEST(Sensitivities, ExpectLessLossOfTypesThatReconstructBetter) {
  Fixture f("mini-qwen3moe");
  Sensitivities s = measure_errors(*f.source, f.encoder, no_progress());
  SimulatedBuilds builds(*f.source, f.encoder, f.cache, {}, f.chunks, 24, no_progress());
  set_probe_results(s, builds.measure(probe_builds(*f.source, s, 1000), no_progress()));
  const std::vector<std::vector<double>> losses = expected_losses(s);
  for (size_t i = 0; i < losses.size(); ++i) {
    EXPECT_EQ(losses[i].back(), 0.0);
    for (size_t a = 0; a < losses[i].size(); ++a) {
      for (size_t b = 0; b < losses[i].size(); ++b) {
        EXPECT_TRUE(s.errors[i][a] >= s.errors[i][b] || losses[i][a] <= losses[i][b]) << f.source->tensors()[i].name;
      }
    }
  }
}

TEST(Fit, FillsTheSizeAndRefusesWhatCannotBe) {
  Fixture f("mini-qwen3moe");
  Sensitivities s = measure_errors(*f.source, f.encoder, no_progress());
  SimulatedBuilds builds(*f.source, f.encoder, f.cache, {}, f.chunks, 24, no_progress());
  set_probe_results(s, builds.measure(probe_builds(*f.source, s, 1000), no_progress()));
  // A file whose header grows with the number of types in it, as the embedded recipe does.
  const FileSize file_size = [&](const TypeAssignment& types) {
    uint64_t bytes = 1000 + 64 * std::set<DType>(types.begin(), types.end()).size();
    for (size_t i = 0; i < types.size(); ++i) bytes += (tensor_size_bytes(types[i], f.source->tensors()[i].shape) + 31) / 32 * 32;
    return bytes;
  };
  uint64_t smallest = 0;
  try {
    solve_types(*f.source, s, expected_losses(s), 1, file_size);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    const std::string text = error.message();
    smallest = std::stoull(text.substr(text.find("file has ") + 9));
  }
  double before = 1e300;
  for (const double factor : {1.0, 1.2, 1.6, 2.5}) {
    const auto size = static_cast<uint64_t>(factor * static_cast<double>(smallest));
    const std::vector<FitBuild> found = propose_builds(*f.source, s, builds, std::span(&size, 1), file_size, {.rounds = 1}, no_progress());
    EXPECT_EQ(found.front().size_bytes, file_size(found.front().types));
    EXPECT_LE(found.front().size_bytes, size);
    EXPECT_TRUE(factor > 2.0 || found.front().size_bytes > size * 97 / 100) << factor;
    EXPECT_LT(found.front().expected, before);
    before = found.front().expected;
  }
}

TEST(Fit, ReturnsAPlainBuildThatIsBetter) {
  Fixture f("mini-qwen3moe");
  Sensitivities s = measure_errors(*f.source, f.encoder, no_progress());
  SimulatedBuilds builds(*f.source, f.encoder, f.cache, {}, f.chunks, 24, no_progress());
  set_probe_results(s, builds.measure(probe_builds(*f.source, s, 1000), no_progress()));
  FitBuild worst{"worst", {}, 500, 0.0, {}, {}}, exact{"exact", exact_assignment(s), 400, 0.0, {}, {}}, large = exact;
  for (const std::vector<DType>& candidates : s.candidates) worst.types.push_back(candidates.front());
  large.size_bytes = 501;
  const uint64_t size = 500;
  const std::vector<FitResult> result = check_builds(s, {worst}, {large, exact}, std::span(&size, 1), builds, 3, no_progress());
  ASSERT_EQ(result.front().winner, 0u);
  ASSERT_EQ(result.front().rivals.size(), 1u);  // not the one that is too large
  EXPECT_EQ(result.front().rivals.front().size_bytes, 400u);
  EXPECT_FALSE(check_builds(s, {exact}, {worst}, std::span(&size, 1), builds, 3, no_progress()).front().winner);
}

TEST(RescaleLosses, FollowsWhatWasMeasuredAsFarAsItIsKnown) {
  Sensitivities s;
  s.candidates.assign(3, {DType::Q2_K, DType::Q8_0});
  s.errors.assign(3, {1.0, 0.0});
  const std::vector<std::vector<double>> losses(3, {0.1, 0.0});
  const TypeAssignment base(3, DType::Q2_K);
  const std::vector<size_t> tensors = {0, 1, 2};
  const std::vector<DType> steps(3, DType::Q8_0);
  // The first gave twice, the second half of what was expected, exactly measured; of the third nothing is known.
  const std::vector<Estimate> gains = {{0.2, 1e-6}, {0.05, 1e-6}, {0.1, 10.0}};
  const auto scaled = rescale_losses(s, losses, base, tensors, steps, gains);
  EXPECT_NEAR(scaled[0][0] / scaled[1][0], 4.0, 0.01);
  EXPECT_NEAR(scaled[2][0], 0.1, 0.001);
}

}  // namespace
}  // namespace quern
