#include <sstream>

#include "tests/formats/arch/arch_test_util.h"

// The {arch}.* keys of whole models. The expected lists are what llama.cpp's converter writes for the same config.json (read from
// conversion/{base,llama,qwen,deepseek,gpt_oss}.py), apart from the lines marked "ours".

namespace quern {
namespace {

struct ToText {
  std::string operator()(const std::string& s) const { return s; }
  std::string operator()(bool b) const { return b ? "true" : "false"; }
  std::string operator()(uint32_t v) const { return std::to_string(v); }
  std::string operator()(int32_t v) const { return std::to_string(v) + " i32"; }
  std::string operator()(float v) const {
    std::ostringstream out;
    out << v << " f32";
    return out.str();
  }
  template <typename T>
  std::string operator()(const std::vector<T>& values) const {
    std::string text;
    for (const T& value : values) text += (text.empty() ? "" : ", ") + (*this)(value);
    return "[" + text + "]";
  }
  template <typename T>
  std::string operator()(const T&) const {
    return "(unexpected type)";
  }
};

// "KEY = VALUE" without the prefix, sorted by key.
std::set<std::string> lines_of(const Metadata& metadata, const std::string& arch) {
  std::set<std::string> lines;
  for (const auto& [key, value] : metadata.entries()) {
    EXPECT_TRUE(key.starts_with(arch + ".")) << key;
    lines.insert(key.substr(arch.size() + 1) + " = " + std::visit(ToText{}, value));
  }
  return lines;
}

std::set<std::string> model_lines(const std::string& folder, const std::string& arch, bool mtp = false) {
  return lines_of(keys_of(load_config(std::filesystem::path(QUERN_TEST_DATA) / "models" / folder), mtp), arch);
}

using Lines = std::set<std::string>;

TEST(ArchKeys, OfLlama) {
  EXPECT_EQ(
      model_lines("mini-llama3", "llama"),
      (Lines{"block_count = 2", "context_length = 512", "embedding_length = 256", "feed_forward_length = 512", "attention.head_count = 4",
             "attention.head_count_kv = 2", "rope.freq_base = 500000 f32", "attention.layer_norm_rms_epsilon = 1e-05 f32",
             "attention.key_length = 64", "attention.value_length = 64", "vocab_size = 512", "rope.dimension_count = 64"}));
}

TEST(ArchKeys, OfMixtral) {
  EXPECT_EQ(model_lines("mini-mixtral", "llama"),
            (Lines{"block_count = 2", "context_length = 512", "embedding_length = 256", "feed_forward_length = 256",
                   "attention.head_count = 4", "attention.head_count_kv = 2", "rope.freq_base = 1e+06 f32",
                   "attention.layer_norm_rms_epsilon = 1e-05 f32", "attention.key_length = 64", "attention.value_length = 64",
                   "expert_count = 4", "expert_used_count = 2", "vocab_size = 2048", "rope.dimension_count = 64"}));
}

TEST(ArchKeys, OfQwen2) {
  EXPECT_EQ(
      model_lines("mini-qwen2", "qwen2"),
      (Lines{"block_count = 2", "context_length = 512", "embedding_length = 256", "feed_forward_length = 512", "attention.head_count = 4",
             "attention.head_count_kv = 2", "rope.freq_base = 1e+06 f32", "attention.layer_norm_rms_epsilon = 1e-06 f32"}));
}

TEST(ArchKeys, OfQwen3) {
  EXPECT_EQ(model_lines("mini-qwen3", "qwen3"),
            (Lines{"block_count = 2", "context_length = 512", "embedding_length = 256", "feed_forward_length = 512",
                   "attention.head_count = 4", "attention.head_count_kv = 2", "rope.freq_base = 1e+06 f32",
                   "attention.layer_norm_rms_epsilon = 1e-06 f32", "attention.key_length = 64", "attention.value_length = 64"}));
}

TEST(ArchKeys, OfQwen3Moe) {
  EXPECT_EQ(model_lines("mini-qwen3moe", "qwen3moe"),
            (Lines{"block_count = 2", "context_length = 512", "embedding_length = 256", "feed_forward_length = 768",
                   "attention.head_count = 4", "attention.head_count_kv = 2", "rope.freq_base = 1e+06 f32",
                   "attention.layer_norm_rms_epsilon = 1e-06 f32", "attention.key_length = 64", "attention.value_length = 64",
                   "expert_count = 4", "expert_used_count = 2", "expert_feed_forward_length = 256"}));
}

// The line of the gating is ours: llama.cpp's converter writes none, and its loader then has no function.
TEST(ArchKeys, OfDots1) {
  EXPECT_EQ(lines_of(keys_of(real_config("dots.llm1")), "dots1"),
            (Lines{"block_count = 62", "context_length = 32768", "embedding_length = 4096", "feed_forward_length = 10944",
                   "attention.head_count = 32", "attention.head_count_kv = 32", "rope.freq_base = 1e+07 f32",
                   "attention.layer_norm_rms_epsilon = 1e-05 f32", "attention.key_length = 128", "attention.value_length = 128",
                   "expert_count = 128", "expert_used_count = 6", "leading_dense_block_count = 1", "expert_feed_forward_length = 1408",
                   "expert_shared_count = 2", "expert_gating_func = 2", "expert_weights_scale = 2.5 f32", "expert_weights_norm = true"}));
}

const Lines kDeepSeek2Lines = {"block_count = 2",
                               "context_length = 512",
                               "embedding_length = 256",
                               "feed_forward_length = 256",
                               "attention.head_count = 4",
                               "attention.head_count_kv = 1",
                               "rope.scaling.type = yarn",
                               "rope.scaling.factor = 4 f32",
                               "rope.scaling.original_context_length = 128",
                               "rope.scaling.yarn_beta_fast = 32 f32",
                               "rope.scaling.yarn_beta_slow = 1 f32",
                               "rope.scaling.yarn_log_multiplier = 0.1 f32",
                               "rope.freq_base = 10000 f32",
                               "attention.layer_norm_rms_epsilon = 1e-06 f32",
                               "expert_count = 8",
                               "expert_used_count = 2",
                               "expert_group_count = 4",
                               "expert_group_used_count = 2",
                               "expert_gating_func = 2",
                               "leading_dense_block_count = 1",
                               "vocab_size = 512",
                               "attention.q_lora_rank = 256",
                               "attention.kv_lora_rank = 64",
                               "attention.key_length = 96",
                               "attention.value_length = 64",
                               "attention.key_length_mla = 64",
                               "attention.value_length_mla = 64",
                               "expert_feed_forward_length = 256",
                               "expert_shared_count = 1",
                               "expert_weights_scale = 2.5 f32",
                               "expert_weights_norm = true",
                               "rope.dimension_count = 32"};

TEST(ArchKeys, OfDeepSeek2) { EXPECT_EQ(model_lines("mini-v3", "deepseek2"), kDeepSeek2Lines); }

TEST(ArchKeys, OfADeepSeek2MtpFile) {
  Lines expected = kDeepSeek2Lines;
  expected.erase("block_count = 2");
  expected.merge(Lines{"block_count = 3", "nextn_predict_layers = 1"});
  EXPECT_EQ(model_lines("mini-v3", "deepseek2", true), expected);
}

TEST(ArchKeys, OfDeepSeekV2Lite) {
  const Metadata keys = keys_of(real_config("deepseek-v2-lite"));
  EXPECT_EQ(keys.get_int("deepseek2.attention.q_lora_rank"), 0);
  EXPECT_EQ(keys.find("deepseek2.expert_weights_norm"), nullptr);
  EXPECT_EQ(keys.get_int("deepseek2.expert_gating_func"), 1);
  EXPECT_EQ(keys.get_int("deepseek2.expert_group_count"), 1);
  EXPECT_EQ(keys.get_int("deepseek2.attention.key_length"), 576);
  EXPECT_FLOAT_EQ(static_cast<float>(keys.get_float("deepseek2.rope.scaling.yarn_log_multiplier")), 0.0707f);
}

TEST(ArchKeys, OfKimiK2KeepTheYarnBetas) {
  const Metadata keys = keys_of(real_config("kimi-k2"));
  EXPECT_EQ(keys.get_float("deepseek2.rope.scaling.yarn_beta_fast"), 1.0);
  EXPECT_EQ(keys.get_float("deepseek2.rope.scaling.yarn_beta_slow"), 1.0);
}

const Lines kDeepSeek4Lines = {"block_count = 3",
                               "context_length = 512",
                               "embedding_length = 256",
                               "embedding_length_out = 1024",
                               "attention.head_count = 4",
                               "attention.head_count_kv = 1",
                               "attention.key_length = 64",
                               "attention.value_length = 64",
                               "attention.layer_norm_rms_epsilon = 1e-06 f32",
                               "attention.q_lora_rank = 256",
                               "attention.sliding_window = 32",
                               "attention.output_group_count = 1",
                               "attention.output_lora_rank = 256",
                               "attention.compress_ratios = [0 i32, 4 i32, 128 i32, 0 i32]",
                               "attention.compress_rope_freq_base = 40000 f32",
                               "attention.indexer.head_count = 2",
                               "attention.indexer.key_length = 64",
                               "attention.indexer.top_k = 64",
                               "rope.dimension_count = 32",
                               "rope.freq_base = 10000 f32",
                               "rope.scaling.type = yarn",
                               "rope.scaling.factor = 4 f32",
                               "rope.scaling.original_context_length = 128",
                               "rope.scaling.yarn_beta_fast = 32 f32",
                               "rope.scaling.yarn_beta_slow = 1 f32",
                               "expert_count = 4",
                               "expert_used_count = 2",
                               "expert_feed_forward_length = 256",
                               "expert_shared_count = 1",
                               "expert_weights_scale = 1.5 f32",
                               "expert_weights_norm = true",
                               "expert_gating_func = 4",
                               "swiglu_clamp_exp = [10 f32, 10 f32, 10 f32]",
                               "swiglu_clamp_shexp = [10 f32, 10 f32, 10 f32]",
                               "hyper_connection.count = 4",
                               "hyper_connection.sinkhorn_iterations = 20",
                               "hyper_connection.epsilon = 1e-06 f32",
                               "hash_layer_count = 1",
                               "vocab_size = 512"};  // ours; another reader of such files requires it

TEST(ArchKeys, OfDeepSeek4) { EXPECT_EQ(model_lines("mini-v4", "deepseek4"), kDeepSeek4Lines); }

TEST(ArchKeys, OfADeepSeek4MtpFileCoverTheExtraBlock) {
  Lines expected = kDeepSeek4Lines;
  for (const char* changed :
       {"block_count = 3", "swiglu_clamp_exp = [10 f32, 10 f32, 10 f32]", "swiglu_clamp_shexp = [10 f32, 10 f32, 10 f32]"}) {
    ASSERT_EQ(expected.erase(changed), 1u);
  }
  expected.merge(Lines{"block_count = 4", "nextn_predict_layers = 1", "swiglu_clamp_exp = [10 f32, 10 f32, 10 f32, 10 f32]",
                       "swiglu_clamp_shexp = [10 f32, 10 f32, 10 f32, 10 f32]"});
  EXPECT_EQ(model_lines("mini-v4", "deepseek4", true), expected);
}

TEST(ArchKeys, OfDeepSeek4ReadTransformersV5RopeParameters) {
  std::string json = slurp(std::filesystem::path(QUERN_TEST_DATA) / "models/mini-v4/config.json");
  const auto cut = [&](const std::string& from, const std::string& to) {
    const size_t at = json.find(from);
    json.replace(at, json.find(to, at) + to.size() - at, "");
  };
  cut("\"rope_scaling\"", "},");
  cut("\"rope_theta\"", ",");
  cut("\"compress_rope_theta\"", ",");
  json.insert(1, R"("rope_parameters": {"main": {"rope_theta": 10000.0, "rope_type": "default"},
      "compress": {"rope_theta": 40000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
                   "beta_fast": 32, "beta_slow": 1}},)");
  EXPECT_EQ(lines_of(keys_of(ModelConfig::parse(json)), "deepseek4"), kDeepSeek4Lines);
}

TEST(ArchKeys, OfGptOss) {
  EXPECT_EQ(lines_of(keys_of(real_config("gpt-oss-20b")), "gpt-oss"),
            (Lines{"block_count = 24",
                   "context_length = 131072",
                   "embedding_length = 2880",
                   "feed_forward_length = 2880",
                   "attention.head_count = 64",
                   "attention.head_count_kv = 8",
                   "rope.scaling.type = yarn",
                   "rope.scaling.factor = 32 f32",
                   "rope.scaling.original_context_length = 4096",
                   "rope.scaling.yarn_beta_fast = 32 f32",
                   "rope.scaling.yarn_beta_slow = 1 f32",
                   "rope.freq_base = 150000 f32",
                   "rope.scaling.yarn_truncate = false",  // ours: llama.cpp rounds the bounds
                   "attention.layer_norm_rms_epsilon = 1e-05 f32",
                   "expert_count = 32",
                   "expert_used_count = 4",
                   "attention.key_length = 64",
                   "attention.value_length = 64",
                   "attention.sliding_window = 128",
                   "expert_feed_forward_length = 2880"}));
}

TEST(ArchKeys, OfLinearScaling) {
  const Metadata keys = keys_of(real_config("deepseek-coder-6.7b"));
  EXPECT_EQ(keys.get_string("llama.rope.scaling.type"), "linear");
  EXPECT_EQ(keys.get_float("llama.rope.scaling.factor"), 4.0);
  EXPECT_EQ(keys.get_float("llama.rope.freq_base"), 100000.0);
}

TEST(ArchKeys, WriteTheDefaultHeadDimOfQwen3) {
  std::string json = slurp(std::filesystem::path(QUERN_TEST_DATA) / "configs/qwen3-8b.json");
  json.replace(json.find("\"head_dim\": 128,"), 16, "");
  EXPECT_EQ(keys_of(ModelConfig::parse(json)).get_int("qwen3.attention.key_length"), 128);
}

// Llama with these fields beside the sizes.
Metadata rope_keys(const std::string& fields) {
  return keys_of(ModelConfig::parse(R"({"model_type": "llama", "hidden_size": 64, "vocab_size": 32, "num_hidden_layers": 1,
      "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128, )" +
                                    fields + "}"));
}

TEST(ArchKeys, OfTwoSpellingsOfRopeFollowTransformers) {
  struct Case {
    const char* fields;
    double theta;
    std::optional<double> factor;
  };
  const Case cases[] = {
      {R"("rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"})", 1e6, {}},
      {R"("rope_scaling": {"type": "linear", "factor": 4}, "rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8})",
       1e6, 4},
      {R"("rope_scaling": {"rope_type": "linear", "factor": 4}, "rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6})", 5e5, 4},
      {R"("rope_scaling": {"rope_type": "linear", "factor": 4, "rope_theta": 7}, "rope_theta": 5e5)", 7, 4},
      {R"("rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 4})", 1e4, 4},
      {R"("rope_scaling": null, "rope_parameters": {"rope_type": "linear", "factor": 8})", 1e4, 8},
      {R"("rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 8})", 1e4, 8},
  };
  for (const Case& c : cases) {
    const Metadata keys = rope_keys(c.fields);
    EXPECT_EQ(keys.get_float("llama.rope.freq_base"), c.theta) << c.fields;
    EXPECT_EQ(keys.find_float("llama.rope.scaling.factor"), c.factor) << c.fields;
  }
}

}  // namespace
}  // namespace quern
