// Checkpoints and the GGUF files made from them, through the same runtime.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "convert/convert.h"
#include "convert/plan/make_plan.h"
#include "convert/plan/plan.h"
#include "formats/base/parallel.h"
#include "tests/formats/builders.h"
#include "tests/verify/goldens.h"
#include "verify/drift/perplexity.h"

namespace quern {
namespace {

class Builds {
 public:
  explicit Builds(const std::filesystem::path& model) : model_(model) {}

  std::filesystem::path make(const std::string& type) {
    const std::unique_ptr<ModelSource> source = open_model(model_);
    PlanOptions options;
    options.output = folder_ / "out";
    options.types = {type};
    options.force = true;
    std::vector<Problem> problems;
    const Plan plan = make_plan(*source, model_, options, problems);
    if (!problems.empty()) throw Error(problems.front().kind, problems.front().message);
    run_plan(*source, plan, no_progress());
    return options.output / plan.outputs.front().files.front().name;
  }

 private:
  std::filesystem::path model_;
  test::TempDir folder_;
};

Perplexity measure(const std::filesystem::path& path, const std::vector<Sequence>& chunks, const EvalOptions& options = {}) {
  return measure_perplexity(*open_model(path), options, chunks, no_progress());
}

std::filesystem::path bundled(const std::string& name) { return std::filesystem::path(QUERN_TEST_DATA) / "models" / name; }

struct Exact {
  const char* model;
  std::vector<std::string> types;
};

class ExactBuilds : public testing::TestWithParam<Exact> {};

TEST_P(ExactBuilds, GiveTheBitsOfTheCheckpoint) {
  const std::filesystem::path model = bundled(GetParam().model);
  const Goldens goldens(model);
  const Perplexity original = measure(model, goldens.chunks);
  Builds builds(model);
  for (const std::string& type : GetParam().types)
    EXPECT_EQ(measure(builds.make(type), goldens.chunks).log_probs, original.log_probs) << type;
}

std::string exact_name(const testing::TestParamInfo<Exact>& exact) {
  std::string name = exact.param.model;
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Bundled, ExactBuilds,
                         testing::Values(Exact{"mini-llama3", {"F32", "BF16"}}, Exact{"mini-mixtral", {"F32", "BF16"}},
                                         Exact{"mini-qwen2", {"F32", "BF16"}}, Exact{"mini-qwen3", {"BF16"}},
                                         Exact{"mini-qwen3moe", {"BF16"}}, Exact{"mini-v3", {"F32"}},
                                         Exact{"mini-v4", {"F32", "BF16", "lossless"}}),
                         exact_name);

// The routers of random weights are full of near ties: rounding V3's products to BF16 sends a few tokens to other experts, and with
// them moves the mean (by 1.1 %; the noise floor moves it by 1.4 %). The others stay put; trained models stay within 0.001, below.
TEST(RoundedBuild, OfV3MovesOnlyTokensWhoseExpertsChange) {
  const std::filesystem::path model = bundled("mini-v3");
  const Goldens goldens(model);
  const Perplexity original = measure(model, goldens.chunks);
  const Perplexity bf16 = measure(Builds(model).make("BF16"), goldens.chunks);
  std::vector<float> changes;
  for (size_t i = 0; i < original.log_probs.size(); ++i) changes.push_back(std::abs(bf16.log_probs[i] - original.log_probs[i]));
  std::ranges::sort(changes);
  EXPECT_LE(changes[changes.size() * 9 / 10], 0.02f);
}

TEST(Evaluation, DoesNotDependOnThreadsMemoryOrChunkCount) {
  const std::filesystem::path model = bundled("mini-v3");
  const Goldens goldens(model);
  const Perplexity usual = measure(model, goldens.chunks);
  {
    const ThreadLimit one(1);
    EXPECT_EQ(measure(model, goldens.chunks).log_probs, usual.log_probs);
  }
  const std::vector<Sequence> first(goldens.chunks.begin(), goldens.chunks.begin() + 1);
  const Perplexity alone = measure(model, first);
  EXPECT_TRUE(std::equal(alone.log_probs.begin(), alone.log_probs.end(), usual.log_probs.begin()));

  const std::unique_ptr<ModelSource> source = open_model(model);
  Evaluator evaluator(*source, {});
  const EvalPlan plan = evaluator.plan(goldens.chunks);
  EvalOptions tight;
  tight.memory_bytes = plan.layer_bytes + plan.expert_bytes + plan.work_bytes + (uint64_t{17} << 20);
  Evaluator spilling(*source, tight);
  std::vector<Sequence> many = goldens.chunks;
  while (!spilling.plan(many).spill) many.insert(many.end(), goldens.chunks.begin(), goldens.chunks.end());
  spilling.forward(many, no_progress());
  const Perplexity spilled = score(spilling, OutputHead(spilling), goldens.chunks);
  EXPECT_EQ(spilled.log_probs, usual.log_probs);
  tight.memory_bytes = 1 << 20;
  EXPECT_THROW(measure(model, goldens.chunks, tight), Error);
}

struct Trained {
  const char* model;
  bool lossless;
};

class TrainedModelBuilds : public testing::TestWithParam<Trained> {};

// Bounds on ln(PPL / PPL of the original): about three times what was measured, so that a damaged encoder or loader shows.
TEST_P(TrainedModelBuilds, StayNearTheGoldenPerplexity) {
  const std::filesystem::path model = std::filesystem::path(QUERN_SHARED) / "models" / GetParam().model;
  if (!std::filesystem::exists(model)) GTEST_SKIP() << model << " is not here";
  const Goldens goldens(model);
  const double golden = goldens.figures["ppl_second_half"];
  Builds builds(model);
  std::vector<std::pair<std::string, double>> bounds = {{"BF16", 1e-3}, {"Q8_0", 2e-3}, {"Q4_K_M", 0.02}, {"Q3_K_M", 0.04}};
  if (GetParam().lossless) bounds.emplace_back("lossless", 1e-5);
  for (const auto& [type, bound] : bounds) {
    const double ppl = measure(builds.make(type), goldens.chunks).ppl;
    std::printf("  %-14s %-9s golden %.6f measured %.6f ln ratio %+.6f\n", GetParam().model, type.c_str(), golden, ppl,
                std::log(ppl / golden));
    EXPECT_LE(std::abs(std::log(ppl / golden)), bound) << type;
  }
}

std::string trained_name(const testing::TestParamInfo<Trained>& trained) {
  std::string name = trained.param.model;
  std::ranges::replace(name, '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(TrainedModelBuilds, TrainedModelBuilds,
                         testing::Values(Trained{"tiny-llama3", false}, Trained{"tiny-mixtral", false}, Trained{"tiny-qwen2", false},
                                         Trained{"tiny-qwen3moe", false}, Trained{"tiny-v3", false}, Trained{"tiny-v4-flash", true}),
                         trained_name);

}  // namespace
}  // namespace quern
