#include "tests/runtime/golden_v4.h"

#include <gtest/gtest.h>

#include <functional>

#include "runtime/pass/mtp.h"
#include "runtime/pass/output_head.h"

namespace quern {
namespace {

std::vector<float> run(const MemorySource& source, const EvalOptions& options = {}) {
  Evaluator evaluator(source, options);
  evaluator.forward({{GoldenV4::tokens()}}, no_progress());
  return logits_of(evaluator, OutputHead(evaluator));
}

double nll(const std::vector<float>& logits, int64_t shift = 1) {
  const std::vector<int32_t> tokens = GoldenV4::tokens();
  double sum = 0.0;
  int64_t n = 0;
  for (; n + shift < GoldenV4::kTokens; ++n) {
    const float* row = logits.data() + n * 64;
    sum += logsumexp(row, 64) - static_cast<double>(row[tokens[static_cast<size_t>(n + shift)]]);
  }
  return sum / static_cast<double>(n);
}

void expect_row(const std::vector<float>& logits, int64_t row, std::vector<double> expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(logits[static_cast<size_t>(row * 64) + i]), expected[i], 1e-5) << "row " << row << " column " << i;
  }
}

TEST(GoldenV4, WeightsAreThoseOfTheSpecification) {
  GoldenV4 golden;
  EXPECT_EQ(golden.n_tensors, 263);
  EXPECT_NEAR(golden.sum, 428.971578, 1e-5);
  EXPECT_NEAR(static_cast<double>(golden.main.values("blk.1.attn_compressor_ape.weight")[3]), -0.1971240, 1e-6);
  const std::vector<int32_t> tokens = GoldenV4::tokens();
  EXPECT_EQ(std::vector<int32_t>(tokens.begin(), tokens.begin() + 16),
            (std::vector<int32_t>{21, 43, 51, 29, 32, 19, 46, 32, 16, 45, 54, 6, 22, 12, 51, 56}));
}

TEST(GoldenV4, LogitsAndLossEqualTheReference) {
  const GoldenV4 golden;
  for (const bool plain : {false, true}) {
    const std::vector<float> logits = run(golden.main, {.arithmetic = plain ? Arithmetic::kPlain : fastest_arithmetic()});
    expect_row(logits, 0, {0.5756951, -1.5989247, 2.4770683, -0.1152821});
    expect_row(logits, 3, {-0.2627050, -2.2535995, 1.1692967, 0.6102743});
    expect_row(logits, 8, {-3.0603639, 1.0444115, -0.3165491, -0.5383396});
    expect_row(logits, 127, {-0.2172272, 0.0943765, -2.1437237, 0.5620329});
    expect_row(logits, 140, {1.1834067, 0.5057049, -2.3916296, 1.6641432});
    EXPECT_NEAR(logsumexp(logits.data(), 64), 6.164656, 2e-6);
    EXPECT_NEAR(logsumexp(logits.data() + 140 * 64, 64), 5.553374, 2e-6);
    EXPECT_NEAR(nll(logits), 5.5977318, 1e-6);
  }
}

TEST(GoldenV4, StatesAfterEachLayerEqualTheReference) {
  const GoldenV4 golden;
  Evaluator evaluator(golden.main, {});
  evaluator.start({{GoldenV4::tokens()}});
  evaluator.embed();
  const double sums[] = {243.388507, -5.355945, 11.087682, -19.404864};
  std::vector<float> states(static_cast<size_t>(GoldenV4::kTokens * 64));
  for (int64_t layer = 0; layer < 4; ++layer) {
    evaluator.run_layers(layer, layer + 1, no_progress());
    evaluator.states().read(0, GoldenV4::kTokens, states.data());
    double sum = 0.0;
    for (const float v : states) sum += static_cast<double>(v);
    EXPECT_NEAR(sum, sums[layer], 2e-3) << "layer " << layer;
  }
  const double first[] = {-0.0333177, -0.2207377, -0.0232596, -1.9801691}, last[] = {1.8254812, -0.6398030, -0.3002966, -0.5664581};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(static_cast<double>(states[i]), first[i], 1e-5);
    EXPECT_NEAR(static_cast<double>(states[140 * 64 + 3 * 16 + i]), last[i], 1e-5);
  }
}

TEST(GoldenV4, RoutingEqualsTheReference) {
  const GoldenV4 golden;
  Evaluator evaluator(golden.main, {});
  evaluator.start({{GoldenV4::tokens()}});
  evaluator.embed();
  std::vector<std::vector<int32_t>> experts;
  evaluator.run_layers(0, 4, no_progress(), [&](int64_t, const Routing& all) {
    experts.push_back({all.experts.begin() + 40, all.experts.begin() + 42});
  });
  ASSERT_EQ(experts.size(), 4u);
  EXPECT_EQ(experts[0], (std::vector<int32_t>{0, 5}));
  EXPECT_EQ(experts[2], (std::vector<int32_t>{5, 0}));
}

TEST(GoldenV4, MtpBlockEqualsTheReference) {
  const GoldenV4 golden;
  const std::vector<Sequence> sequences = {{GoldenV4::tokens()}};
  Evaluator main(golden.main, {});
  main.forward(sequences, no_progress());
  MtpEvaluator mtp(golden.mtp, {});
  mtp.run(main, sequences, no_progress());
  const std::vector<float> logits = logits_of(mtp.block(), mtp.head());
  expect_row(logits, 0, {0.1881743, -0.8197518, -0.2324071, 1.1717212});
  expect_row(logits, 139, {0.4926052, 0.8384901, 2.2722937, 1.4086490});
  EXPECT_NEAR(nll(logits, 2), 5.4257569, 1e-6);
}

TEST(GoldenV4, ResultsDoNotDependOnBudgetOrOtherSequences) {
  const GoldenV4 golden;
  const std::vector<float> alone = run(golden.main);
  Evaluator evaluator(golden.main, {});
  std::vector<int32_t> other = GoldenV4::tokens();
  other.resize(77);
  evaluator.forward({{other}, {GoldenV4::tokens()}, {other, true}}, no_progress());
  const std::vector<float> together = logits_of(evaluator, OutputHead(evaluator));
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + 77 * 64));
  EXPECT_TRUE(std::equal(together.begin(), together.begin() + 77 * 64, alone.begin()));  // causal: the same prefix
  EXPECT_FALSE(std::equal(together.begin(), together.begin() + 77 * 64, together.begin() + (77 + 141) * 64));
}

// The specification lists what each wrong implementation computes. Those that can be provoked through metadata or weights must give
// exactly the listed loss: this shows both that the mistake is not made and that the test would see it.
struct Mistake {
  const char* name;
  double nll;
  std::function<void(MemorySource&)> apply;
};

void for_weights(MemorySource& source, const char* ending, const std::function<void(std::vector<float>&)>& change) {
  for (const LogicalTensor& tensor : source.tensors()) {
    if (tensor.name.ends_with(ending)) change(source.values(tensor.name));
  }
}

TEST(GoldenV4, MistakesGiveTheFingerprintsOfTheSpecification) {
  const auto set = [](const char* key, MetaValue value) {
    return [key, value](MemorySource& s) { s.metadata().set(std::string("deepseek4.") + key, value); };
  };
  const std::vector<float> no_clamp(5, 0.0f);
  const Mistake mistakes[] = {
      {"shared expert not clamped", 5.877807, set("swiglu_clamp_shexp", no_clamp)},
      {"no clamp anywhere", 5.764242,
       [&](MemorySource& s) {
         s.metadata().set("deepseek4.swiglu_clamp_exp", no_clamp);
         s.metadata().set("deepseek4.swiglu_clamp_shexp", no_clamp);
       }},
      {"w1 and w3 swapped", 5.600269,
       [](MemorySource& s) {
         for (int layer = 0; layer < 4; ++layer) {
           const std::string blk = "blk." + std::to_string(layer) + ".";
           for (const char* suffix : {"_exps.weight", "_shexp.weight"}) {
             std::swap(s.values(blk + "ffn_gate" + suffix), s.values(blk + "ffn_up" + suffix));
           }
         }
       }},
      {"no YaRN on compressed layers", 5.602904, set("rope.scaling.type", std::string("none"))},
      {"no sink", 5.566596, [](MemorySource& s) { for_weights(s, "attn_sinks.weight", [](auto& w) { std::ranges::fill(w, -1e30f); }); }},
      {"ape omitted", 5.626303, [](MemorySource& s) { for_weights(s, "_ape.weight", [](auto& w) { std::ranges::fill(w, 0.0f); }); }},
      {"window one short", 5.681145, set("attention.sliding_window", uint32_t{7})},
      {"window one long", 5.563410, set("attention.sliding_window", uint32_t{9})},
      {"indexer ignored", 5.552880, set("attention.indexer.top_k", uint32_t{1000})},
      {"sigmoid router", 5.619784, set("expert_gating_func", uint32_t{2})},
      {"no normalisation", 5.517486, set("expert_weights_norm", false)},
      {"no routed scale", 5.617161, set("expert_weights_scale", 1.0f)},
      {"1 Sinkhorn iteration", 5.594591, set("hyper_connection.sinkhorn_iterations", uint32_t{1})},
  };
  for (const Mistake& mistake : mistakes) {
    GoldenV4 golden;
    mistake.apply(golden.main);
    EXPECT_NEAR(nll(run(golden.main)), mistake.nll, 2e-6) << mistake.name;
  }
}

}  // namespace
}  // namespace quern
