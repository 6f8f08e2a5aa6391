#include "formats/arch/config.h"

#include "tests/formats/arch/arch_test_util.h"

namespace quern {
namespace {

ModelConfig parse(const std::string& json) { return ModelConfig::parse(json); }

TEST(ModelConfig, NamesFileAndKeyOfAMissingValue) {
  const ModelConfig config = parse("{}");
  EXPECT_ERROR(config.get_count("num_attention_heads"), ErrorKind::kFormat, "config.json: 'num_attention_heads' is missing");
}

TEST(ModelConfig, TreatsNullAsAbsent) {
  const ModelConfig config = parse(R"({"q_lora_rank": null})");
  EXPECT_FALSE(config.has("q_lora_rank"));
  EXPECT_EQ(config.get_count("q_lora_rank", 7), 7);
}

TEST(ModelConfig, AcceptsWholeFloatsAsIntegersAndIntegersAsFloats) {
  const ModelConfig config = parse(R"({"hidden_size": 4096.0, "rope_theta": 10000, "bad": 1.5})");
  EXPECT_EQ(config.get_count("hidden_size"), 4096);
  EXPECT_EQ(config.get_float("rope_theta"), 10000.0);
  EXPECT_ERROR(config.get_count("bad"), ErrorKind::kFormat, "config.json: 'bad' is not an integer");
}

TEST(ModelConfig, ChecksRanges) {
  const ModelConfig config = parse(R"({"a": 0, "b": -3, "c": 99999999999, "d": 18446744073709551615, "e": 1e300, "f": [1, 2000]})");
  EXPECT_ERROR(config.get_count("a"), ErrorKind::kFormat, "config.json: 'a' is 0, expected 1 to 2147483647");
  EXPECT_THROW(config.get_count("b"), Error);
  EXPECT_THROW(config.get_count("c"), Error);
  EXPECT_THROW(config.get_count("d"), Error);
  EXPECT_THROW(config.get_count("e"), Error);
  EXPECT_ERROR(config.find_int_array("f", 0, 128), ErrorKind::kFormat, "config.json: 'f[1]' is 2000, expected 0 to 128");
}

TEST(ModelConfig, RejectsOtherTypes) {
  const ModelConfig config = parse(R"({"a": "12", "b": [1, "x"], "c": {"d": 1}, "e": true})");
  EXPECT_THROW(config.get_count("a"), Error);
  EXPECT_THROW(config.find_int_array("b", 0, 9), Error);
  EXPECT_THROW(config.find_string_array("b"), Error);
  EXPECT_THROW(config.get_count("e"), Error);
  EXPECT_THROW(config.get_bool("a", true), Error);
  EXPECT_FALSE(config.has("c"));
  EXPECT_TRUE(config.has_prefix("c."));
  EXPECT_EQ(config.get_count("c.d"), 1);
}

TEST(ModelConfig, KnowsOlderNamesOfAField) {
  const ModelConfig config = parse(R"({"n_layer": 3, "n_routed_experts": 8, "norm_eps": 1e-5, "max_sequence_length": 2048})");
  EXPECT_EQ(config.get_count("num_hidden_layers"), 3);
  EXPECT_EQ(config.get_count("num_experts"), 8);
  EXPECT_EQ(config.get_float("rms_norm_eps"), 1e-5);
  EXPECT_EQ(config.get_count("max_position_embeddings"), 2048);
}

TEST(ModelConfig, PrefersTheNewestNameOfAField) {
  EXPECT_EQ(parse(R"({"n_layer": 3, "num_hidden_layers": 4})").get_count("num_hidden_layers"), 4);
}

TEST(ModelConfig, MergesTextConfigOverTheOuterFields) {
  const ModelConfig config =
      parse(R"({"hidden_size": 1, "vocab_size": 5, "text_config": {"hidden_size": 2, "rope_scaling": {"factor": 8}}})");
  EXPECT_EQ(config.get_count("hidden_size"), 2);
  EXPECT_EQ(config.get_count("vocab_size"), 5);
  EXPECT_EQ(config.get_float("rope_scaling.factor"), 8.0);
}

TEST(ModelConfig, ReplacesNestedObjectsAsAWhole) {
  const ModelConfig config =
      parse(R"({"rope_scaling": {"type": "linear", "factor": 2}, "text_config": {"rope_scaling": {"type": "yarn"}}})");
  EXPECT_EQ(config.find_string("rope_scaling.type"), "yarn");
  EXPECT_FALSE(config.has("rope_scaling.factor"));
  EXPECT_FALSE(parse(R"({"rope_scaling": {"factor": 2}, "text_config": {"rope_scaling": null}})").has_prefix("rope_scaling."));
}

TEST(ModelConfig, KeepsGenerationParametersApart) {
  const ModelConfig config = ModelConfig::parse(R"({"temperature": 3})", R"({"temperature": 0.6, "top_k": "many"})");
  EXPECT_EQ(config.get_float("generation_config.temperature"), 0.6);
  EXPECT_EQ(config.get_float("temperature"), 3.0);
  EXPECT_ERROR(config.get_count("generation_config.top_k"), ErrorKind::kFormat, "generation_config.json: 'top_k' is not an integer");
}

TEST(ModelConfig, RejectsWhatIsNotAnObject) {
  EXPECT_THROW(parse(""), Error);
  EXPECT_THROW(parse("[]"), Error);
  EXPECT_THROW(parse("{"), Error);
  EXPECT_THROW(parse("{} x"), Error);
  EXPECT_THROW(parse("{\"a\": NaN}"), Error);
  EXPECT_THROW(parse("{\"a\": 1e999}"), Error);
}

TEST(ModelConfig, RejectsDeepAndHugeText) {
  const std::string deep = R"({"a":)" + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_ERROR(parse(deep), ErrorKind::kFormat, "nested deeper than 32");
  EXPECT_THROW(parse(std::string(size_t{9} << 20, ' ')), Error);
}

TEST(ModelConfig, EveryPrefixOfAConfigIsRejected) {
  const std::string good = slurp(std::filesystem::path(QUERN_TEST_DATA) / "configs/deepseek-v2-lite.json");
  const size_t end = good.rfind('}');
  for (size_t n = 0; n < end; ++n) EXPECT_THROW(parse(good.substr(0, n)), Error) << n << " bytes";
}

TEST(ModelConfig, ReadsFolders) {
  const ModelConfig config = load_config(std::filesystem::path(QUERN_TEST_DATA) / "models/mini-llama3");
  EXPECT_EQ(config.find_string("model_type"), "llama");
  EXPECT_TRUE(config.has("generation_config.temperature"));
  EXPECT_THROW(load_config(std::filesystem::path("/nonexistent")), Error);
}

}  // namespace
}  // namespace quern
