#include "verify/intact/rederive_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "convert/record/build_record_json.h"
#include "tests/convert/conversion.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using testing::HasSubstr;

constexpr const char* kModel = "mini-qwen3moe";

const BuildRecord& made() {
  static const BuildRecord record = [] {
    const TempDir dir;
    test::convert(test::bundled(kModel), test::options_for(dir / "out", {"Q8_0"}));
    return build_record_from_json(read_text_file(test::file_ending(dir / "out", ".tensors.json"), 1 << 26));
  }();
  return record;
}

std::vector<Finding> derived(const BuildRecord& build, const fs::path& source, const Manifest* manifest = nullptr,
                             const ModelOptions& options = {}) {
  std::vector<Finding> findings;
  EXPECT_GT(rederive_metadata(build, *open_model(source, options), manifest, findings), 20U);
  return findings;
}

TEST(RederiveMetadata, OfTheSameCheckpointIsTheSame) { EXPECT_TRUE(derived(made(), test::bundled(kModel)).empty()); }

// A build and a checkpoint whose documents differ in one value.
struct Planted {
  const char* name;
  const char* file;
  std::string from, to;
  std::string key;
};

class PlantedMetadata : public testing::TestWithParam<Planted> {};

TEST_P(PlantedMetadata, IsNamedByItsKey) {
  const TempDir dir;
  const fs::path source = test::copy_model(kModel, dir / kModel);
  std::string text = read_text_file(source / GetParam().file, 1 << 24);
  const size_t at = text.find(GetParam().from);
  ASSERT_NE(at, std::string::npos);
  test::write_text(source / GetParam().file, text.replace(at, GetParam().from.size(), GetParam().to));
  const std::vector<Finding> findings = derived(made(), source);
  ASSERT_EQ(findings.size(), 1U) << to_string(findings.at(1));
  EXPECT_EQ(findings[0].verdict, Verdict::kDamage);
  EXPECT_EQ(findings[0].check, "source");
  EXPECT_EQ(findings[0].kind, GetParam().key == "tokenizer.chat_template" ? "other-template" : "other-metadata");
  EXPECT_TRUE(findings[0].file.ends_with(".gguf"));
  EXPECT_THAT(findings[0].message, HasSubstr("'" + GetParam().key + "' is not what the checkpoint gives"));
}

const Planted kPlanted[] = {
    {"Template", "tokenizer_config.json", "{% for m in messages %}", "Obey.{% for m in messages %}", "tokenizer.chat_template"},
    {"Rope", "config.json", "1000000.0", "10000.0", "qwen3moe.rope.freq_base"},
    {"Epsilon", "config.json", "1e-06", "1e-05", "qwen3moe.attention.layer_norm_rms_epsilon"},
    {"Context", "config.json", "\"max_position_embeddings\": 512", "\"max_position_embeddings\": 1024", "qwen3moe.context_length"},
    {"UsedExperts", "config.json", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 1", "qwen3moe.expert_used_count"},
    {"TokenText", "tokenizer.json", "<|im_end|>", "<|im_over|>", "tokenizer.ggml.tokens"},
    {"EndToken", "tokenizer_config.json", "\"eos_token\": \"<|endoftext|>\"", "\"eos_token\": \"<|im_end|>\"",
     "tokenizer.ggml.eos_token_id"},
    {"Bos", "tokenizer_config.json", "\"add_eos_token\": false", "\"add_eos_token\": true", "tokenizer.ggml.add_eos_token"},
    {"Sampling", "generation_config.json", "0.6", "1.9", "general.sampling.temp"},
};

INSTANTIATE_TEST_SUITE_P(Documents, PlantedMetadata, testing::ValuesIn(kPlanted), [](const auto& planted) { return planted.param.name; });

TEST(RederiveMetadata, KeysMoreAndLessAreNamed) {
  BuildRecord build = made();
  build.keys.emplace_back("tokenizer.chat_template.tool_use", std::string(64, '1'));
  std::erase_if(build.keys, [](const auto& key) { return key.first == "qwen3moe.rope.freq_base"; });
  const std::vector<Finding> findings = derived(build, test::bundled(kModel));
  ASSERT_EQ(findings.size(), 2U);
  EXPECT_THAT(findings[0].message, HasSubstr("'qwen3moe.rope.freq_base' is missing, the checkpoint gives"));
  EXPECT_THAT(findings[1].message, HasSubstr("'tokenizer.chat_template.tool_use' does not follow from the checkpoint"));
  EXPECT_EQ(findings[1].kind, "other-template");
}

TEST(RederiveMetadata, KeysOfHowItWasMadeAreNotDerived) {
  BuildRecord build = made();
  for (const char* key : {"quern.recipe", "quantize.imatrix.file", "split.count", "general.file_type"})
    build.keys.emplace_back(key, std::string(64, '1'));
  EXPECT_TRUE(derived(build, test::bundled(kModel)).empty());
}

TEST(RederiveMetadata, WhatPublishersChooseIsOneNote) {
  ModelOptions options;
  options.name = "Another Name";
  options.license = "mit";
  const std::vector<Finding> findings = derived(made(), test::bundled(kModel), nullptr, options);
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings[0].verdict, Verdict::kNote);
  EXPECT_THAT(findings[0].message, HasSubstr("general.name"));
  EXPECT_THAT(findings[0].message, HasSubstr("general.license"));
}

TEST(RederiveMetadata, OfAnotherVersionIsUnproved) {
  BuildRecord build = made();
  build.quern_version = "0.0.1";
  EXPECT_TRUE(derived(build, test::bundled(kModel)).empty());
  std::ranges::find(build.keys, std::string("qwen3moe.rope.freq_base"), &ValueSums::value_type::first)->second = std::string(64, '1');
  const std::vector<Finding> findings = derived(build, test::bundled(kModel));
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings[0].verdict, Verdict::kUnprovable);
  EXPECT_THAT(findings[0].message, HasSubstr("quern 0.0.1 made it"));
}

TEST(RederiveMetadata, ATemplateThatThePublisherGaveIsUnproved) {
  BuildRecord build = made();
  std::ranges::find(build.keys, std::string("tokenizer.chat_template"), &ValueSums::value_type::first)->second = std::string(64, '1');
  Manifest manifest;
  EXPECT_EQ(derived(build, test::bundled(kModel), &manifest).at(0).verdict, Verdict::kDamage);
  manifest.inputs = {{kTemplateInput, "", 10, std::string(64, '2')}};
  const std::vector<Finding> findings = derived(build, test::bundled(kModel), &manifest);
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings[0].verdict, Verdict::kUnprovable);
  EXPECT_THAT(findings[0].message, HasSubstr("the publisher gave another"));
}

TEST(RederiveMetadata, OfAnotherModelIsNamedInPartAndCounted) {
  const std::vector<Finding> findings = derived(made(), test::bundled("mini-llama3"));
  size_t n_damage = 0;
  std::string last;
  for (const Finding& finding : findings) {
    if (finding.verdict != Verdict::kDamage) continue;
    ++n_damage;
    last = finding.message;
  }
  EXPECT_EQ(n_damage, 8U);
  EXPECT_THAT(last, HasSubstr("more keys of the metadata)"));
}

}  // namespace
}  // namespace quern
