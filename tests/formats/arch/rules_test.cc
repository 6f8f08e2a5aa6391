#include <array>
#include <cmath>
#include <map>

#include "formats/arch/stems.h"
#include "formats/checkpoint/transforms.h"
#include "tests/formats/arch/arch_test_util.h"

namespace quern {
namespace {

int64_t total_weights(const ArchRules& rules) {
  int64_t total = 0;
  for (const TensorRule& rule : rules.rules) {
    if (rule.transform != Transform::kGenerated) total += rule.shape.n_elements();
  }
  return total;
}

// Names of stored tensors that the rules read, scales excluded.
std::set<std::string, std::less<>> stored_names(const ArchRules& rules) {
  std::set<std::string, std::less<>> names;
  for (const TensorRule& rule : rules.rules) {
    for (const std::string& name : checkpoint::stored_names(rule)) names.insert(name);
  }
  return names;
}

struct PublishedTotal {
  const char* config;
  double billions;
  double unit;  // of the last published digit
};

class PublishedTotals : public testing::TestWithParam<PublishedTotal> {};

TEST_P(PublishedTotals, MatchTheSumOfAllShapes) {
  const ModelConfig config = real_config(GetParam().config);
  find_arch(config).check(config);
  const double billions = static_cast<double>(total_weights(rules_of(config))) * 1e-9;
  EXPECT_NEAR(billions, GetParam().billions, 0.51 * GetParam().unit);
}

// Published parameter counts (model cards), to the digits given there.
INSTANTIATE_TEST_SUITE_P(RealModels, PublishedTotals,
                         testing::Values(PublishedTotal{"llama-3.1-8b", 8.030, 1e-3}, PublishedTotal{"llama-3.2-1b", 1.236, 1e-3},
                                         PublishedTotal{"llama-3.3-70b", 70.55, 1e-2}, PublishedTotal{"mistral-7b-v0.1", 7.242, 1e-3},
                                         PublishedTotal{"mixtral-8x7b", 46.703, 1e-3}, PublishedTotal{"mixtral-8x22b-v0.1", 140.62, 1e-2},
                                         PublishedTotal{"deepseek-coder-6.7b", 6.741, 1e-3}, PublishedTotal{"qwen2.5-7b", 7.616, 1e-3},
                                         PublishedTotal{"qwen2.5-14b", 14.770, 1e-3}, PublishedTotal{"qwen3-8b", 8.191, 1e-3},
                                         PublishedTotal{"qwen3-30b-a3b", 30.532, 1e-3}, PublishedTotal{"qwen3-235b-a22b", 235.09, 1e-2},
                                         PublishedTotal{"deepseek-v2-lite", 15.706, 1e-3}, PublishedTotal{"deepseek-v2", 235.74, 1e-2},
                                         PublishedTotal{"deepseek-v3", 671.03, 1e-2}, PublishedTotal{"kimi-k2", 1026.4, 1e-1},
                                         PublishedTotal{"dots.llm1", 142.774381696, 1e-9}, PublishedTotal{"gpt-oss-20b", 20.915, 1e-3},
                                         PublishedTotal{"gpt-oss-120b", 116.83, 1e-2},
                                         PublishedTotal{"deepseek-v4-flash", 284.334567511, 1e-9},
                                         PublishedTotal{"deepseek-v4-pro", 1572.999528803, 1e-9}),
                         [](const auto& test) {
                           std::string name = test.param.config;
                           for (char& c : name) {
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           }
                           return name;
                         });

// Public converter logs have 1328 tensors for Flash; Pro follows from its layer list. Stored names: the checkpoint index less its
// F8_E8M0 scales (69,187 - 34,167 and 145,116 - 71,952), main model and MTP block together.
TEST(DeepSeek4Rules, HaveThePublishedTensorCounts) {
  for (const auto& [name, n_gguf, n_stored] :
       {std::tuple{"deepseek-v4-flash", 1328u, 35020u}, std::tuple{"deepseek-v4-pro", 1894u, 73164u}}) {
    const ModelConfig config = real_config(name);
    const ArchRules main = rules_of(config);
    EXPECT_EQ(main.rules.size(), n_gguf);
    auto stored = stored_names(main);
    stored.merge(stored_names(rules_of(config, true, stores({"mtp.0.e_proj.weight"}))));
    EXPECT_EQ(stored.size(), n_stored);
  }
}

TEST(DeepSeek4Rules, FollowTheCompressRatioOfEachLayer) {
  const ArchRules rules = rules_of(real_config("deepseek-v4-flash"));
  EXPECT_EQ(find_rule(rules, "blk.1.attn_compressor_kv.weight"), nullptr);
  EXPECT_EQ(find_rule(rules, "blk.2.attn_compressor_kv.weight")->shape, (Shape{1024, 4096}));
  EXPECT_EQ(find_rule(rules, "blk.2.attn_compressor_ape.weight")->shape, (Shape{4, 1024}));
  EXPECT_EQ(find_rule(rules, "blk.3.attn_compressor_kv.weight")->shape, (Shape{512, 4096}));
  EXPECT_EQ(find_rule(rules, "blk.3.attn_compressor_ape.weight")->shape, (Shape{128, 512}));
  EXPECT_EQ(find_rule(rules, "blk.3.indexer.proj.weight"), nullptr);
  EXPECT_EQ(find_rule(rules, "blk.2.indexer.attn_q_b.weight")->shape, (Shape{8192, 1024}));
  EXPECT_EQ(find_rule(rules, "blk.2.ffn_gate_tid2eid.weight")->shape, (Shape{129280, 6}));
  EXPECT_EQ(find_rule(rules, "blk.2.exp_probs_b.bias"), nullptr);
  EXPECT_NE(find_rule(rules, "blk.3.exp_probs_b.bias"), nullptr);
}

TEST(DeepSeek4Rules, KeepWhatSteersTheRest) {
  const ArchRules rules = rules_of(real_config("deepseek-v4-flash"));
  const std::map<std::string, Keep> expected = {{"output_hc_fn.weight", Keep::kF32},
                                                {"blk.2.hc_attn_fn.weight", Keep::kF32},
                                                {"blk.2.hc_ffn_scale.weight", Keep::kF32},
                                                {"blk.2.attn_sinks.weight", Keep::kF32},
                                                {"blk.2.attn_norm.weight", Keep::kF32},
                                                {"blk.2.attn_kv_a_norm.weight", Keep::kF32},
                                                {"blk.2.attn_compressor_ape.weight", Keep::kF32},
                                                {"blk.2.attn_compressor_kv.weight", Keep::kSource},
                                                {"blk.2.attn_compressor_gate.weight", Keep::kSource},
                                                {"blk.2.attn_compressor_norm.weight", Keep::kF32},
                                                {"blk.2.indexer.proj.weight", Keep::kSource},
                                                {"blk.2.indexer_compressor_kv.weight", Keep::kSource},
                                                {"blk.2.indexer_compressor_ape.weight", Keep::kF32},
                                                {"blk.2.ffn_gate_inp.weight", Keep::kSource},
                                                {"blk.2.ffn_gate_tid2eid.weight", Keep::kInteger},
                                                {"blk.3.exp_probs_b.bias", Keep::kF32},
                                                {"blk.2.indexer.attn_q_b.weight", Keep::kMix},
                                                {"blk.2.attn_output_a.weight", Keep::kMix},
                                                {"blk.2.ffn_down_exps.weight", Keep::kMix},
                                                {"blk.2.ffn_up_shexp.weight", Keep::kMix},
                                                {"token_embd.weight", Keep::kMix},
                                                {"output.weight", Keep::kMix}};
  for (const auto& [name, keep] : expected) {
    const TensorRule* rule = find_rule(rules, name);
    ASSERT_NE(rule, nullptr) << name;
    EXPECT_EQ(rule->keep, keep) << name;
  }
}

TEST(DeepSeek4Rules, MtpFileHasTheBlockAndTheEnds) {
  const ModelConfig config = real_config("deepseek-v4-pro");
  const ArchRules rules = rules_of(config, true, stores({"mtp.0.e_proj.weight"}));
  const TensorRule* eh = find_rule(rules, "blk.61.nextn.eh_proj.weight");
  ASSERT_NE(eh, nullptr);
  EXPECT_EQ(eh->stored, "mtp.0.e_proj.weight|mtp.0.h_proj.weight");
  EXPECT_EQ(eh->transform, Transform::kConcatColumns);
  EXPECT_EQ(eh->shape, (Shape{7168, 14336}));
  EXPECT_EQ(eh->keep, Keep::kSource);
  EXPECT_EQ(eh->layer, 61);
  EXPECT_EQ(find_rule(rules, "output_hc_fn.weight")->stored, "mtp.0.hc_head_fn");
  EXPECT_EQ(find_rule(rules, "blk.61.nextn.shared_head_norm.weight")->stored, "mtp.0.norm.weight");
  EXPECT_EQ(find_rule(rules, "blk.61.attn_compressor_kv.weight"), nullptr);
  EXPECT_EQ(find_rule(rules, "blk.60.attn_norm.weight"), nullptr);
  EXPECT_EQ(rules.rules.size(), 6u + 24u + 4u);
}

TEST(DeepSeek4Rules, MainFileSaysThatTheMtpBlockIsLeftOut) {
  const ModelConfig config = real_config("deepseek-v4-flash");
  const ArchRules rules = rules_of(config, false, stores({"mtp.0.e_proj.weight"}));
  ASSERT_EQ(rules.notes.size(), 1u);
  EXPECT_THAT(rules.notes[0], testing::HasSubstr("--mtp"));
  EXPECT_TRUE(matches_pattern(rules.ignored[0], "mtp.0.attn.wq_a.scale"));
}

TEST(DeepSeek2Rules, SplitKvBPerHead) {
  const ArchRules rules = rules_of(real_config("deepseek-v3"));
  const TensorRule* k = find_rule(rules, "blk.5.attn_k_b.weight");
  const TensorRule* v = find_rule(rules, "blk.5.attn_v_b.weight");
  EXPECT_EQ(k->shape, (Shape{128, 512, 128}));
  EXPECT_EQ(v->shape, (Shape{128, 128, 512}));
  EXPECT_EQ(k->transform, Transform::kSplitKeyB);
  EXPECT_EQ(v->transform, Transform::kSplitValueB);
  EXPECT_EQ(k->stored, v->stored);
  EXPECT_EQ(k->n_head, 128);
  EXPECT_EQ(k->nope_dim, 128);
  EXPECT_EQ(k->value_dim, 128);
}

TEST(DeepSeek2Rules, TakeQInOnePieceWithoutQLoraRank) {
  const ArchRules rules = rules_of(real_config("deepseek-v2-lite"));
  EXPECT_EQ(find_rule(rules, "blk.0.attn_q.weight")->shape, (Shape{3072, 2048}));
  EXPECT_EQ(find_rule(rules, "blk.0.attn_q_a.weight"), nullptr);
  EXPECT_EQ(find_rule(rules, "blk.1.ffn_up_shexp.weight")->shape, (Shape{2816, 2048}));
  EXPECT_EQ(find_rule(rules, "blk.1.exp_probs_b.bias"), nullptr);
  EXPECT_NE(find_rule(rules, "blk.0.ffn_gate.weight"), nullptr);
  EXPECT_EQ(find_rule(rules, "blk.1.ffn_gate.weight"), nullptr);
}

TEST(DeepSeek2Rules, MtpFileComparesTheCopiesOfTheEnds) {
  const ModelConfig config = real_config("deepseek-v3");
  const std::string mtp = "model.layers.61.";
  const ArchRules rules =
      rules_of(config, true, stores({mtp + "eh_proj.weight", mtp + "embed_tokens.weight", mtp + "shared_head.head.weight"}));
  EXPECT_EQ(find_rule(rules, "blk.61.nextn.embed_tokens.weight")->drop_if_equal_to, "model.embed_tokens.weight");
  EXPECT_EQ(find_rule(rules, "blk.61.nextn.shared_head_head.weight")->drop_if_equal_to, "lm_head.weight");
  EXPECT_EQ(find_rule(rules, "blk.61.nextn.eh_proj.weight")->shape, (Shape{7168, 14336}));
  EXPECT_NE(find_rule(rules, "blk.61.ffn_up_exps.weight"), nullptr);
  EXPECT_NE(find_rule(rules, "token_embd.weight"), nullptr);
  for (const TensorRule& rule : rules.rules) EXPECT_TRUE(rule.layer == -1 || rule.layer == 61) << rule.name;
}

TEST(LlamaRules, PermuteQAndKByTheirOwnHeadCounts) {
  const ArchRules rules = rules_of(real_config("llama-3.1-8b"));
  EXPECT_EQ(find_rule(rules, "blk.0.attn_q.weight")->n_head, 32);
  EXPECT_EQ(find_rule(rules, "blk.0.attn_k.weight")->n_head, 8);
  EXPECT_EQ(find_rule(rules, "blk.0.attn_k.weight")->transform, Transform::kPermuteHeads);
  EXPECT_EQ(find_rule(rules, "blk.0.attn_v.weight")->transform, Transform::kNone);
}

TEST(LlamaRules, TakeBiasesThatTheConfigNamesOrTheCheckpointStores) {
  const ArchRules none = rules_of(real_config("llama-3.1-8b"));
  EXPECT_EQ(find_rule(none, "blk.0.attn_q.bias"), nullptr);
  const ArchRules stored = rules_of(real_config("llama-3.1-8b"), false, stores({"model.layers.0.self_attn.q_proj.bias"}));
  const TensorRule* bias = find_rule(stored, "blk.0.attn_q.bias");
  ASSERT_NE(bias, nullptr);
  EXPECT_EQ(bias->transform, Transform::kPermuteHeads);
  EXPECT_EQ(bias->keep, Keep::kF32);
  EXPECT_EQ(find_rule(stored, "blk.1.attn_q.bias"), nullptr);
}

// Wavelengths between 8192/4 and 8192/1 are interpolated; values computed in f64 by an independent program.
TEST(LlamaRules, GenerateLlama3RopeFactors) {
  const ArchRules rules = rules_of(real_config("llama-3.1-8b"));
  const TensorRule* rule = find_rule(rules, "rope_freqs.weight");
  ASSERT_NE(rule, nullptr);
  ASSERT_EQ(rule->generated.size(), 64u);
  EXPECT_EQ(rule->generated[28], 1.0f);
  EXPECT_NEAR(rule->generated[29], 1.2074839, 1e-6);
  EXPECT_NEAR(rule->generated[32], 2.6945297, 1e-6);
  EXPECT_NEAR(rule->generated[34], 5.2573266, 1e-6);
  EXPECT_EQ(rule->generated[35], 8.0f);
  const ArchRules small = rules_of(real_config("llama-3.2-1b"));
  EXPECT_NEAR(find_rule(small, "rope_freqs.weight")->generated[16], 3.2922621, 1e-6);
}

TEST(LlamaRules, TiedEmbeddingsHaveNoOutputUnlessOneIsStored) {
  EXPECT_EQ(find_rule(rules_of(real_config("llama-3.2-1b")), "output.weight"), nullptr);
  const ArchRules rules = rules_of(real_config("llama-3.2-1b"), false, stores({"lm_head.weight"}));
  EXPECT_EQ(find_rule(rules, "output.weight")->drop_if_equal_to, "model.embed_tokens.weight");
}

TEST(LlamaRules, NoteASlidingWindowThatGgufCannotExpress) {
  EXPECT_EQ(rules_of(real_config("mistral-7b-v0.1")).notes.size(), 1u);
  EXPECT_TRUE(rules_of(real_config("mixtral-8x7b")).notes.empty());
}

TEST(MixtralRules, AcceptOneTensorPerExpertOrFusedStacks) {
  const ModelConfig config = real_config("mixtral-8x7b");
  const ArchRules each = rules_of(config);
  EXPECT_EQ(find_rule(each, "blk.0.ffn_gate_exps.weight")->stored, "model.layers.0.block_sparse_moe.experts.{e}.w1.weight");
  EXPECT_EQ(find_rule(each, "blk.0.ffn_down_exps.weight")->shape, (Shape{8, 4096, 14336}));

  std::set<std::string, std::less<>> names;
  for (int i = 0; i < 32; ++i) {
    const std::string mlp = "model.layers." + std::to_string(i) + ".mlp.";
    names.insert({mlp + "gate.weight", mlp + "experts.gate_up_proj", mlp + "experts.down_proj"});
  }
  const ArchRules fused = rules_of(config, false, stores(names));
  const TensorRule* up = find_rule(fused, "blk.31.ffn_up_exps.weight");
  EXPECT_EQ(up->stored, "model.layers.31.mlp.experts.gate_up_proj");
  EXPECT_EQ(up->transform, Transform::kSecondHalfRows);
  EXPECT_EQ(find_rule(fused, "blk.31.ffn_gate_exps.weight")->transform, Transform::kFirstHalfRows);
  EXPECT_EQ(find_rule(fused, "blk.31.ffn_down_exps.weight")->transform, Transform::kStoredStack);
  EXPECT_EQ(find_rule(fused, "blk.31.ffn_gate_inp.weight")->stored, "model.layers.31.mlp.gate.weight");
  EXPECT_EQ(total_weights(fused), total_weights(each));
}

TEST(GptOssRules, SplitAlternatingRows) {
  const ArchRules rules = rules_of(real_config("gpt-oss-20b"));
  const TensorRule* gate = find_rule(rules, "blk.7.ffn_gate_exps.weight");
  EXPECT_EQ(gate->stored, "model.layers.7.mlp.experts.gate_up_proj_blocks");
  EXPECT_EQ(gate->transform, Transform::kEvenRows);
  EXPECT_EQ(gate->shape, (Shape{32, 2880, 2880}));
  EXPECT_EQ(find_rule(rules, "blk.7.ffn_up_exps.weight")->transform, Transform::kOddRows);
  EXPECT_EQ(find_rule(rules, "blk.7.ffn_up_exps.bias")->keep, Keep::kF32);
  EXPECT_EQ(find_rule(rules, "blk.7.ffn_norm.weight"), nullptr);
  EXPECT_NE(find_rule(rules, "blk.7.post_attention_norm.weight"), nullptr);
  EXPECT_EQ(find_rule(rules, "blk.7.attn_sinks.weight")->keep, Keep::kF32);
}

TEST(ArchRules, ComeInTheOrderOfTheirUse) {
  const ArchRules rules = rules_of(real_config("llama-3.1-8b"));
  EXPECT_EQ(rules.rules[0].name, "rope_freqs.weight");
  EXPECT_EQ(rules.rules[1].name, "token_embd.weight");
  EXPECT_EQ(rules.rules[2].name, "blk.0.attn_k.weight");
  const size_t n = rules.rules.size();
  EXPECT_EQ(rules.rules[n - 3].name, "blk.31.ffn_up.weight");
  EXPECT_EQ(rules.rules[n - 2].name, "output.weight");
  EXPECT_EQ(rules.rules[n - 1].name, "output_norm.weight");
}

TEST(ArchRules, HaveUniqueNames) {
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(QUERN_TEST_DATA) / "configs")) {
    if (entry.path().extension() != ".json") continue;
    std::set<std::string> names;
    for (const TensorRule& rule : rules_of(ModelConfig::parse(slurp(entry.path()))).rules) {
      EXPECT_TRUE(names.insert(rule.name).second) << entry.path() << " " << rule.name;
    }
  }
}

TEST(ArchRules, TakeSentinelsForAWindowThatIsNotThere) {
  const auto notes_of = [](const char* window) {
    return rules_of(ModelConfig::parse(R"({"model_type": "mistral", "hidden_size": 64, "vocab_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128, "sliding_window": )" +
                                       std::string(window) + "}"))
        .notes.size();
  };
  for (const char* none : {"null", "-1", "0", "4096"}) EXPECT_EQ(notes_of(none), 0U) << none;
  EXPECT_EQ(notes_of("64"), 1U);
}

}  // namespace
}  // namespace quern
