#include "tests/formats/arch/arch_test_util.h"

// What the descriptors must not convert, each with the value that is in the way.

namespace quern {
namespace {

// configs/NAME.json with extra or changed fields: the last of two equal JSON keys wins.
ModelConfig changed(const std::string& name, const std::string& fields) {
  std::string json = slurp(std::filesystem::path(QUERN_TEST_DATA) / "configs" / (name + ".json"));
  json.replace(json.rfind('}'), 1, ", " + fields + "}");
  return ModelConfig::parse(json);
}

void check(const ModelConfig& config) { find_arch(config).check(config); }

struct Refused {
  const char* config;
  const char* fields;
  const char* message;
};

class Refusals : public testing::TestWithParam<Refused> {};

TEST_P(Refusals, NameTheValue) {
  EXPECT_ERROR(check(changed(GetParam().config, GetParam().fields)), ErrorKind::kUnsupported, GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    All, Refusals,
    testing::Values(
        Refused{"llama-3.1-8b", R"("hidden_act": "gelu")", "hidden_act 'gelu'"},
        Refused{"llama-3.1-8b", R"("rope_scaling": {"rope_type": "longrope", "factor": 4})", "rope_type 'longrope'"},
        Refused{"llama-3.1-8b", R"("layer_types": ["full_attention", "chunked_attention"])", "chunked_attention"},
        Refused{"llama-3.1-8b", R"("partial_rotary_factor": 0.5)", "partial_rotary_factor is 0.5"},
        Refused{"qwen3-8b", R"("rope_parameters": {"partial_rotary_factor": 0.25})", "rope_parameters.partial_rotary_factor is 0.25"},
        Refused{"llama-3.1-8b", R"("head_dim": 127)", "head_dim 127 is odd"},
        Refused{"qwen2.5-14b", R"("use_sliding_window": true, "max_window_layers": 20)", "use_sliding_window is true"},
        Refused{"qwen2.5-14b", R"("rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]})", "rope_type 'mrope'"},
        Refused{"qwen2.5-14b", R"("head_dim": 64)", "num_attention_heads x head_dim is 2560"},
        Refused{"qwen3-8b", R"("attention_bias": true)", "attention_bias is true"},
        Refused{"qwen3-30b-a3b", R"("decoder_sparse_step": 2)", "decoder_sparse_step is 2"},
        Refused{"qwen3-30b-a3b", R"("mlp_only_layers": [0])", "mlp_only_layers is not empty"},
        Refused{"qwen3-30b-a3b", R"("norm_topk_prob": false)", "norm_topk_prob is false"},
        Refused{"dots.llm1", R"("num_key_value_heads": 8)", "num_key_value_heads is 8"},
        Refused{"dots.llm1", R"("attention_bias": true)", "attention_bias is true"},
        Refused{"dots.llm1", R"("scoring_func": "softmax")", "scoring_func 'softmax'"},
        Refused{"dots.llm1", R"("n_group": 4)", "n_group is set"}, Refused{"dots.llm1", R"("moe_layer_freq": 2)", "moe_layer_freq is 2"},
        Refused{"deepseek-v3", R"("moe_layer_freq": 2)", "moe_layer_freq is 2"},
        Refused{"deepseek-v3", R"("topk_method": "best")", "topk_method 'best'"},
        Refused{"deepseek-v3", R"("scoring_func": "relu")", "scoring_func 'relu'"},
        Refused{"deepseek-v3", R"("rope_interleave": false)", "rope_interleave is false"},
        Refused{"deepseek-v3", R"("index_topk": 2048)", "DeepSeek-V3.2"},
        Refused{"deepseek-v3", R"("rope_scaling": {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 0.5})", "differ"},
        Refused{"deepseek-v4-flash", R"("model_type": "deepseek_v41")", "DeepSeek-V4.1 is another architecture"},
        Refused{"deepseek-v4-flash", R"("architectures": ["DeepseekV41ForCausalLM"])", "DeepSeek-V4.1 is another architecture"},
        Refused{"deepseek-v4-flash", R"("model_type": "deepseek_v5")", "model_type is 'deepseek_v5', expected 'deepseek_v4'"},
        Refused{"deepseek-v4-flash", R"("scoring_func": "sigmoid")", "scoring_func is 'sigmoid'"},
        Refused{"deepseek-v4-flash", R"("num_key_value_heads": 8)", "num_key_value_heads is 8"},
        Refused{"gpt-oss-20b", R"("swiglu_limit": 10)", "swiglu_limit is 10"},
        Refused{"gpt-oss-20b", R"("layer_types": ["full_attention", "sliding_attention"])", "layer_types[0] is 'full_attention'"},
        Refused{"deepseek-v3", R"("architectures": ["DeepseekV32ForCausalLM"])", "DeepSeek-V3.2"}));

TEST(ArchRefusals, CompressRatiosOtherThanTheThreeKnown) {
  std::string ratios = R"("num_hidden_layers": 3, "compress_ratios": [0, 2, 128])";
  EXPECT_ERROR(check(changed("deepseek-v4-flash", ratios)), ErrorKind::kUnsupported, "compress_ratios has 2, known are 0, 4 and 128");
  ratios = R"("num_hidden_layers": 3, "compress_ratios": [0, 4])";
  EXPECT_ERROR(check(changed("deepseek-v4-flash", ratios)), ErrorKind::kFormat, "has 2 entries, expected one for each of 3 layers");
}

std::string refusal_of(const std::string& json) {
  try {
    find_arch(ModelConfig::parse(json));
  } catch (const Error& error) {
    return error.message();
  }
  return {};
}

TEST(ArchRefusals, UnknownClassesGetNoOtherModelAsAHint) {
  for (const char* name : {"Ministral3ForCausalLM", "Phi3ForCausalLM", "Gemma3ForCausalLM", "GPT2LMHeadModel", "T5", "x"}) {
    const std::string message = refusal_of(R"({"architectures": [")" + std::string(name) + R"("]})");
    EXPECT_EQ(message,
              "config.json: architecture '" + std::string(name) + "' is not supported; docs/convert.md lists the classes that are");
  }
  EXPECT_EQ(refusal_of(R"({"model_type": "gpt_os"})"),
            "config.json: model_type 'gpt_os' is not supported; docs/convert.md lists the classes that are");
  EXPECT_ERROR(find_arch(ModelConfig::parse("{}")), ErrorKind::kFormat, "neither 'architectures' nor 'model_type'");
}

TEST(ArchRefusals, UnknownClassesOfAKnownFamilyAreToldWhichOfItAreKnown) {
  const std::string qwen = refusal_of(R"({"architectures": ["Qwen2MoeForCausalLM"]})");
  EXPECT_THAT(qwen,
              testing::HasSubstr("of this family Qwen2ForCausalLM, Qwen3ForCausalLM, Qwen3MoeForCausalLM are, but that is another model"));
  EXPECT_THAT(qwen, testing::Not(testing::HasSubstr("Deepseek")));
  EXPECT_THAT(refusal_of(R"({"architectures": ["Dots2ForCausalLM"]})"),
              testing::HasSubstr("of this family Dots1ForCausalLM is, but that is another model"));
}

TEST(ArchRefusals, ModelsAroundALanguageModelAreNamed) {
  const std::string intern = refusal_of(
      R"({"architectures": ["InternVLChatModel"], "vision_config": {}, "llm_config": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}})");
  EXPECT_EQ(intern,
            "config.json: 'InternVLChatModel' is more than a language model: it has one in 'llm_config' beside 'vision_config', and is not "
            "supported; that one is a Qwen2ForCausalLM, which can be converted when it is saved by itself");
  EXPECT_THAT(
      refusal_of(
          R"({"architectures": ["Mistral3ForConditionalGeneration"], "text_config": {"model_type": "mistral"}, "vision_config": {}})"),
      testing::HasSubstr("'Mistral3ForConditionalGeneration' is more than a language model: it has one in 'text_config'"));
  EXPECT_THAT(
      refusal_of(
          R"({"model_type": "deepseek_vl_v2", "language_config": {"model_type": "deepseek_v2", "architectures": ["DeepseekV2ForCausalLM"]}})"),
      testing::HasSubstr(
          "'deepseek_vl_v2' is more than a language model: it has one in 'language_config', and is not supported; that one"));
  EXPECT_THAT(
      refusal_of(R"({"vision_config": {}, "audio_config": {}, "text_config": {"architectures": ["LlamaForCausalLM"]}})"),
      testing::HasSubstr("the model is more than a language model: it has one in 'text_config' beside 'audio_config', 'vision_config'"));
}

TEST(ArchRefusals, NestedFieldsOfALanguageModelAreNoWrapper) {
  EXPECT_EQ(find_arch(ModelConfig::parse(R"({"architectures": ["LlamaForCausalLM"], "text_config": {"model_type": "llama"}})")).gguf_arch,
            "llama");
  EXPECT_EQ(find_arch(ModelConfig::parse(R"({"text_config": {"model_type": "qwen2"}})")).gguf_arch, "qwen2");
}

TEST(ArchRefusals, FindsArchitecturesByModelTypeAlone) {
  EXPECT_EQ(find_arch(ModelConfig::parse(R"({"model_type": "qwen3_moe"})")).gguf_arch, "qwen3moe");
}

TEST(ArchRefusals, MtpWhereThereIsNone) {
  for (const char* name : {"llama-3.1-8b", "qwen2.5-7b", "qwen3-8b", "qwen3-30b-a3b", "gpt-oss-20b", "kimi-k2", "deepseek-v3"}) {
    EXPECT_ERROR(rules_of(real_config(name), true), ErrorKind::kUnsupported, "--mtp");
  }
}

TEST(ArchRefusals, DSparkDraftersAreNoMtpBlocks) {
  const ModelConfig plain = real_config("deepseek-v4-flash");
  const HasTensor drafter = stores({"mtp.0.main_proj.weight", "mtp.0.e_proj.weight"});
  EXPECT_ERROR(rules_of(plain, true, drafter), ErrorKind::kUnsupported, "DSpark drafter");
  const ModelConfig config = changed("deepseek-v4-flash", R"("dspark_block_size": 5)");
  EXPECT_ERROR(rules_of(config, true), ErrorKind::kUnsupported, "DSpark drafter");
  const ArchRules main = rules_of(config);
  ASSERT_EQ(main.notes.size(), 1u);
  EXPECT_THAT(main.notes[0], testing::HasSubstr("DSpark"));
  EXPECT_EQ(main.rules.size(), 1328u);
}

TEST(ArchRefusals, TransformersExportsOfDeepSeek4) {
  EXPECT_ERROR(rules_of(real_config("deepseek-v4-flash"), false, stores({"model.embed_tokens.weight"})), ErrorKind::kUnsupported,
               "transformers re-export");
}

TEST(ArchRefusals, UnpackedExportsOfGptOss) {
  EXPECT_ERROR(rules_of(real_config("gpt-oss-20b"), false, stores({"model.layers.0.mlp.experts.gate_up_proj"})), ErrorKind::kUnsupported,
               "re-export of gpt-oss");
}

TEST(ArchRefusals, InconsistentSizes) {
  EXPECT_ERROR(check(changed("llama-3.1-8b", R"("num_key_value_heads": 7)")), ErrorKind::kFormat,
               "not a multiple of num_key_value_heads 7");
  EXPECT_ERROR(check(changed("mistral-7b-v0.1", R"("num_attention_heads": 30)")), ErrorKind::kFormat, "hidden_size 4096 is not a multiple");
  EXPECT_ERROR(check(changed("deepseek-v3", R"("n_group": 7)")), ErrorKind::kFormat, "256 experts do not form 7 groups");
  EXPECT_ERROR(check(changed("deepseek-v4-flash", R"("o_groups": 7)")), ErrorKind::kFormat, "o_groups 7 does not divide");
  EXPECT_ERROR(check(changed("gpt-oss-20b", R"("hidden_size": 2890)")), ErrorKind::kFormat, "'hidden_size' is 2890");
  EXPECT_ERROR(keys_of(changed("mixtral-8x7b", R"("num_experts_per_tok": 9)")), ErrorKind::kFormat, "is 9, expected 1 to 8");
}

}  // namespace
}  // namespace quern
