// What the evaluator refuses, and how it says so.

#include "runtime/pass/evaluator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "formats/arch/key_reader.h"
#include "tests/runtime/golden_v4.h"

namespace quern {
namespace {

// A copy of the golden model in which `change` may replace or drop tensors: an empty name drops one.
MemorySource changed(const std::function<void(std::string& name, Shape& shape, std::vector<float>& values)>& change) {
  GoldenV4 golden;
  MemorySource copy;
  copy.metadata() = golden.main.metadata();
  for (const LogicalTensor& tensor : golden.main.tensors()) {
    std::string name = tensor.name;
    Shape shape = tensor.shape;
    std::vector<float> values = golden.main.values(tensor.name);
    change(name, shape, values);
    if (!name.empty()) copy.add(name, shape, std::move(values));
  }
  return copy;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

void evaluate(const MemorySource& source, std::vector<int32_t> tokens = {1, 2, 3, 4, 5}) {
  Evaluator evaluator(source, {});
  evaluator.forward({{std::move(tokens)}}, no_progress());
}

TEST(Evaluator, ReportsAllMissingWrongAndUnknownTensorsTogether) {
  const MemorySource source = changed([](std::string& name, Shape& shape, std::vector<float>& values) {
    if (name == "blk.1.attn_kv.weight") name.clear();
    if (name == "blk.2.attn_q_a_norm.weight") {
      shape = Shape{11};
      values.resize(11);
    }
    if (name == "blk.3.exp_probs_b.bias") name = "blk.3.attn_q.scale";
  });
  const std::string message = message_of([&] { Evaluator(source, {}); });
  EXPECT_THAT(message, testing::HasSubstr("tensor 'blk.1.attn_kv.weight' is missing"));
  EXPECT_THAT(message, testing::HasSubstr("tensor 'blk.2.attn_q_a_norm.weight' has shape [11], expected [12]"));
  EXPECT_THAT(message, testing::HasSubstr("tensor 'blk.3.attn_q.scale' is not one the runtime knows for deepseek4"));
}

TEST(Evaluator, NamesTheLayerWhoseStateIsNotFinite) {
  const MemorySource attention = changed([](std::string& name, Shape&, std::vector<float>& values) {
    if (name == "blk.2.attn_output_b.weight") values[3] = std::numeric_limits<float>::infinity();
  });
  EXPECT_THAT(message_of([&] { evaluate(attention); }), testing::HasSubstr("blk.2.attn_output"));
  const MemorySource experts = changed([](std::string& name, Shape&, std::vector<float>& values) {
    if (name == "blk.1.ffn_down_exps.weight") std::ranges::fill(values, std::numeric_limits<float>::quiet_NaN());
  });
  EXPECT_THAT(message_of([&] { evaluate(experts); }), testing::HasSubstr("blk.1.ffn_down_exps"));
}

TEST(Evaluator, RefusesTokensOutsideTheVocabulary) {
  const GoldenV4 golden;
  EXPECT_THAT(message_of([&] {
                evaluate(golden.main, {1, 64, 2});
              }),
              testing::HasSubstr("token 64 is outside the model's vocabulary of 64"));
}

TEST(Evaluator, RefusesArchitecturesAndRatiosItDoesNotKnow) {
  GoldenV4 golden;
  golden.main.metadata().set("deepseek4.attention.compress_ratios", std::vector<int32_t>{0, 4, 2, 4});
  EXPECT_THAT(message_of([&] { read_hparams(golden.main.metadata()); }), testing::HasSubstr("compression ratio 2 of layer 2"));
  golden.main.metadata().set("general.architecture", std::string("mamba"));
  golden.main.metadata().set("mamba.block_count", uint32_t{1});
  EXPECT_THROW(read_hparams(golden.main.metadata()), Error);
}

TEST(Evaluator, SaysWhatMemoryWouldDo) {
  const GoldenV4 golden;
  Evaluator evaluator(golden.main, {.memory_bytes = 1 << 20});
  const std::vector<Sequence> sequences = {{GoldenV4::tokens()}};
  EXPECT_THAT(message_of([&] { evaluator.plan(sequences); }), testing::HasSubstr("is too small for this model and context"));
}

}  // namespace
}  // namespace quern
