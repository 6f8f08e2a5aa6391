#include "formats/arch/config.h"

#include "tests/formats/arch/arch_test_util.h"
#include "tests/formats/builders.h"

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

TEST(ModelConfig, AcceptsPythonsNumbersWhereNobodyAsksForThem) {
  const ModelConfig config = parse(R"({"hidden_size": 8, "time_step_limit": [0.0, Infinity], "rope_theta": NaN})");
  EXPECT_EQ(config.get_count("hidden_size"), 8);
  EXPECT_ERROR(config.get_float("rope_theta"), ErrorKind::kFormat, "config.json: 'rope_theta' is 'NaN', not a finite number");
}

TEST(ModelConfig, NotesSpellingsThatDisagree) {
  struct Case {
    const char* json;
    const char* expected;  // empty: no note
  };
  const Case cases[] = {
      {R"({"num_experts": 8, "n_routed_experts": 4})", "'num_experts' is 8 and 'n_routed_experts' is 4; the first counts"},
      {R"({"num_local_experts": 8, "n_routed_experts": 4})", "'num_local_experts' is 8 and 'n_routed_experts' is 4"},
      {R"({"num_experts": 8, "num_local_experts": 8.0})", ""},
      {R"({"max_position_embeddings": 4096, "n_positions": 2048})", "'max_position_embeddings' is 4096 and 'n_positions' is 2048"},
      {R"({"max_position_embeddings": 4096, "max_length": 20})", ""},
      {R"({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}})",
       "'rope_parameters.rope_theta' is 1000000 and 'rope_theta' is 10000"},
      {R"({"rope_scaling": {"rope_type": "yarn", "type": "linear"}})", "'rope_scaling.rope_type' is 'yarn'"},
      {R"({"rope_scaling": {"rope_type": "yarn", "type": "yarn"}})", ""},
      {R"({"dtype": "bfloat16", "torch_dtype": "float16"})", "'dtype' is 'bfloat16' and 'torch_dtype' is 'float16'"},
      {R"({"rope_scaling": {"factor": 4}, "rope_parameters": {"factor": 8}})", "rope_scaling counts"},
      {R"({"rope_scaling": {"factor": 4}, "rope_parameters": {"factor": 4.0, "rope_theta": 1}})", ""},
      {R"({"rope_scaling": {"factor": 4}, "rope_theta": 1, "rope_parameters": {"factor": 4, "rope_theta": 2}})", ""},
      {R"({"hidden_size": 1, "hidden_size": 2})", "the key 'hidden_size' occurs twice; the last one counts"},
  };
  for (const Case& c : cases) {
    const ModelConfig config = parse(c.json);
    if (*c.expected == '\0') {
      EXPECT_TRUE(config.notes().empty()) << c.json;
    } else {
      ASSERT_EQ(config.notes().size(), 1U) << c.json;
      EXPECT_THAT(config.notes()[0], ::testing::HasSubstr(c.expected));
    }
  }
}

TEST(ModelConfig, ReadsTokenIdsAsValueListOrNone) {
  const ModelConfig config = parse(R"({"a": 3, "b": [5, 6], "c": -1, "d": [-1, 7], "e": null, "f": "x"})");
  EXPECT_THAT(config.find_token_ids("a"), ::testing::ElementsAre(3));
  EXPECT_THAT(config.find_token_ids("b"), ::testing::ElementsAre(5, 6));
  EXPECT_THAT(config.find_token_ids("c"), ::testing::IsEmpty());
  EXPECT_THAT(config.find_token_ids("d"), ::testing::ElementsAre(7));
  EXPECT_THAT(config.find_token_ids("e"), ::testing::IsEmpty());
  EXPECT_ERROR(config.find_token_ids("f"), ErrorKind::kFormat, "'f' is not an integer");
}

TEST(ModelConfig, TakesCompressionConfigForQuantizationConfig) {
  EXPECT_EQ(parse(R"({"compression_config": {"quant_method": "x"}})").find_string("quantization_config.quant_method"), "x");
  const ModelConfig both = parse(R"({"compression_config": {"quant_method": "x"}, "quantization_config": {"quant_method": "y"}})");
  EXPECT_EQ(both.find_string("quantization_config.quant_method"), "y");
}

TEST(ModelConfig, RejectsWhatIsNotAnObject) {
  EXPECT_THROW(parse(""), Error);
  EXPECT_THROW(parse("[]"), Error);
  EXPECT_THROW(parse("{"), Error);
  EXPECT_THROW(parse("{} x"), Error);
  EXPECT_THROW(parse("{\"a\": nan}"), Error);
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

TEST(ModelConfig, NotesAGenerationConfigThatCannotBeRead) {
  for (const char* broken : {"{", "[]", "\xFF\xFE{", "version https://git-lfs.github.com/spec/v1\n"}) {
    const test::TempDir folder;
    test::write_text(folder / "config.json", R"({"hidden_size": 8})");
    test::write_text(folder / "generation_config.json", broken);
    const ModelConfig config = load_config(folder.path());
    EXPECT_EQ(config.get_count("hidden_size"), 8);
    ASSERT_EQ(config.notes().size(), 1U) << broken;
    EXPECT_THAT(config.notes()[0], ::testing::HasSubstr("generation_config.json: "));
  }
}

TEST(ModelConfig, ReadsFolders) {
  const ModelConfig config = load_config(std::filesystem::path(QUERN_TEST_DATA) / "models/mini-llama3");
  EXPECT_EQ(config.find_string("model_type"), "llama");
  EXPECT_TRUE(config.has("generation_config.temperature"));
  EXPECT_THROW(load_config(std::filesystem::path("/nonexistent")), Error);
}

}  // namespace
}  // namespace quern
