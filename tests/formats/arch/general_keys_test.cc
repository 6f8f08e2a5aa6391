#include "formats/arch/general_keys.h"
#include "formats/arch/model_card.h"
#include "formats/arch/model_name.h"
#include "tests/formats/arch/arch_test_util.h"
#include "tests/formats/builders.h"

namespace quern {
namespace {

using Strings = std::vector<std::string>;

TEST(ModelCard, ReadsScalarsListsAndComments) {
  const ModelCard card = ModelCard::parse(
      "---\n"
      "# a comment\n"
      "license: mit  # the usual\n"
      "language:\n- en\n- \"no\"\n\n"
      "tags: [text-generation, 'a, b', \"c \\\"d\\\"\"]\n"
      "base_model:\n  - org/One-7B\n  - org/Two-7B\n"
      "link: https://example.com/x#y\n"
      "empty:\n"
      "nothing: null\n"
      "---\n"
      "license: not-this\n");
  EXPECT_EQ(card.text("license"), "mit");
  EXPECT_EQ(card.list("language"), (Strings{"en", "no"}));
  EXPECT_EQ(card.list("tags"), (Strings{"text-generation", "a, b", "c \"d\""}));
  EXPECT_EQ(card.list("base_model"), (Strings{"org/One-7B", "org/Two-7B"}));
  EXPECT_EQ(card.text("link"), "https://example.com/x#y");
  EXPECT_EQ(card.text("empty"), "");
  EXPECT_EQ(card.text("nothing"), "");
  EXPECT_EQ(card.text("absent"), "");
}

TEST(ModelCard, SkipsNestedStructures) {
  const ModelCard card = ModelCard::parse(
      "---\n"
      "datasets:\n- name: x\n  type: y\n"
      "model-index:\n  - name: results\n    value: 1\n"
      "description: |\n  many\n  lines\n"
      "extra: {a: b}\n"
      "license: mit\n"
      "---\n");
  EXPECT_TRUE(card.list("datasets").empty());
  EXPECT_TRUE(card.list("model-index").empty());
  EXPECT_EQ(card.text("description"), "");
  EXPECT_EQ(card.text("extra"), "");
  EXPECT_EQ(card.text("license"), "mit");
}

TEST(ModelCard, IsEmptyWithoutACompleteFrontMatter) {
  EXPECT_EQ(ModelCard::parse("").text("license"), "");
  EXPECT_EQ(ModelCard::parse("# Title\n---\nlicense: mit\n---\n").text("license"), "");
  EXPECT_EQ(ModelCard::parse("---\nlicense: mit\n").text("license"), "");
}

TEST(ModelCard, SurvivesAnyText) {
  const std::string odd = "---\n[\n'\n\"\n: :\n-\n- [\n- '\na: [\nb: [x\nc: '\nd: \"\\\n\t- q\n- z\n  e\n---\n";
  for (size_t n = 0; n <= odd.size(); ++n) ModelCard::parse(odd.substr(0, n) + "\n---\n");
  EXPECT_EQ(ModelCard::parse("---\na: x\x01y\n---\n").text("a"), "");
  EXPECT_EQ(ModelCard::parse("---\na: " + std::string(2000, 'x') + "\n---\n").text("a"), "");
  std::string many = "---\ntags:\n";
  for (int i = 0; i < 1000; ++i) many += "- t\n";
  EXPECT_EQ(ModelCard::parse(many + "---\n").list("tags").size(), 256u);
}

struct NameParts {
  const char* id;
  int64_t total_weights;
  const char* basename;
  const char* size;
  const char* finetune;
  const char* version;
};

// What llama.cpp's get_model_id_components gives for these names.
TEST(ModelName, FallsIntoTheConventionalParts) {
  for (const NameParts& e : {
           NameParts{"Mixtral-8x7B-Instruct-v0.1", 46'700'000'000, "Mixtral", "8x7B", "Instruct", "v0.1"},
           NameParts{"Llama-3.1-8B-Instruct", 8'030'000'000, "Llama-3.1", "8B", "Instruct", ""},
           NameParts{"Meta-Llama-3-8B", 8'030'000'000, "Meta-Llama-3", "8B", "", ""},
           NameParts{"Qwen2.5-14B", 14'770'000'000, "Qwen2.5", "14B", "", ""},
           NameParts{"Qwen3-30B-A3B", 30'532'000'000, "Qwen3", "30B-A3B", "", ""},
           NameParts{"deepseek-coder-6.7b-instruct", 6'740'000'000, "deepseek-coder", "6.7B", "instruct", ""},
           NameParts{"DeepSeek-V4-Flash", 284'000'000'000, "", "", "", ""},
           NameParts{"DeepSeek-V4-Flash-0731", 284'000'000'000, "DeepSeek-V4-Flash", "", "", "0731"},
           NameParts{"DeepSeek-V2-Lite-Chat", 15'700'000'000, "DeepSeek-V2-Lite", "", "Chat", ""},
           NameParts{"Phi-3-mini-4k-instruct", 3'800'000'000, "Phi-3", "mini", "4k-instruct", ""},
           NameParts{"gpt-oss-20b", 20'900'000'000, "gpt-oss", "20B", "", ""},
           NameParts{"A title with spaces", 0, "", "", "", ""},
       }) {
    const ModelName name = parse_model_name(e.id, e.total_weights);
    EXPECT_EQ(name.basename, e.basename) << e.id;
    EXPECT_EQ(name.size_label, e.size) << e.id;
    EXPECT_EQ(name.finetune, e.finetune) << e.id;
    EXPECT_EQ(name.version, e.version) << e.id;
  }
  EXPECT_EQ(parse_model_name("meta-llama/Llama-2-7b-hf", 0).organization, "meta-llama");
}

TEST(ModelName, SurvivesAnyText) {
  for (const char* id : {"", "-", "--", "/", "a//b", "./x", "-7b", "x-b", "x-1", "x-7b1", "x-9999999999999999999b", "x-1.b", "x-xB"}) {
    parse_model_name(id, 1000);
    title_of(id);
  }
}

TEST(ModelName, BecomesATitle) {
  EXPECT_EQ(title_of("deepseek-coder-v2-lite"), "Deepseek Coder v2 Lite");
  EXPECT_EQ(title_of("mini-llama3"), "Mini Llama3");
  EXPECT_EQ(title_of("Qwen3-30B-A3B"), "Qwen3 30B A3B");
}

TEST(RoundedCount, HasTwoDigitsAtLeast) {
  EXPECT_EQ(rounded_count(8'030'261'248), "8.0B");
  EXPECT_EQ(rounded_count(671'026'419'200), "671B");
  EXPECT_EQ(rounded_count(1'572'999'528'803), "1.6T");
  EXPECT_EQ(rounded_count(1'314'000), "1.3M");
  EXPECT_EQ(rounded_count(600), "0.6K");
  EXPECT_EQ(rounded_count(40), "0.04K");
}

TEST(SizeLabel, CountsOneExpertPerLayer) {
  EXPECT_EQ(size_label(rules_of(real_config("llama-3.1-8b"))), "8.0B");
  EXPECT_EQ(size_label(rules_of(real_config("mixtral-8x7b"))), "8x7.2B");
  EXPECT_EQ(size_label(rules_of(real_config("deepseek-v3"))), "256x20B");
}

class GeneralKeysTest : public testing::Test {
 protected:
  Metadata keys(const ModelOptions& options = {}, const std::string& generation = "") const {
    const std::string json = slurp(std::filesystem::path(QUERN_TEST_DATA) / "configs/llama-3.1-8b.json");
    const ModelConfig config = ModelConfig::parse(json, generation);
    Metadata metadata;
    notes_.clear();
    set_general_keys(folder_, config, find_arch(config), rules_of(config), options, metadata, notes_);
    return metadata;
  }

  void readme(const std::string& front_matter) {
    std::filesystem::create_directories(folder_);
    test::write_text(folder_ / "README.md", "---\n" + front_matter + "---\n# Title\n");
  }

  mutable std::vector<std::string> notes_;
  test::TempDir root_;
  std::filesystem::path folder_ = root_ / "Llama-3.1-8B-Instruct";
};

TEST_F(GeneralKeysTest, ComeFromTheFolderNameAlone) {
  const Metadata metadata = keys();
  Strings order;
  for (const auto& [key, value] : metadata.entries()) order.push_back(key);
  EXPECT_EQ(order, (Strings{"general.architecture", "general.type", "general.name", "general.finetune", "general.basename",
                            "general.size_label"}));
  EXPECT_EQ(metadata.get_string("general.architecture"), "llama");
  EXPECT_EQ(metadata.get_string("general.name"), "Llama 3.1 8B Instruct");
  EXPECT_EQ(metadata.get_string("general.basename"), "Llama-3.1");
  EXPECT_EQ(metadata.get_string("general.size_label"), "8B");
}

TEST_F(GeneralKeysTest, DoNotLeakThePath) {
  const Metadata metadata = keys();
  for (const auto& [key, value] : metadata.entries()) {
    const auto* text = std::get_if<std::string>(&value);
    ASSERT_NE(text, nullptr);
    EXPECT_EQ(text->find('/'), std::string::npos) << key;
    EXPECT_EQ(text->find("quern-test"), std::string::npos) << key;
  }
}

TEST_F(GeneralKeysTest, NameTheRepositoryOfAHubCache) {
  folder_ = root_ / "models--meta-llama--Llama-3.1-8B" / "snapshots" / "0e9e39f249a16976918f6564b8830bc894c89659";
  EXPECT_EQ(keys().get_string("general.name"), "Llama 3.1 8B");
  EXPECT_EQ(keys().get_string("general.organization"), "Meta Llama");
}

TEST_F(GeneralKeysTest, PreferTheReadme) {
  readme(
      "license: other\nlicense_name: llama3.1\nlicense_link: LICENSE\nmodel_name: Fancy\nlanguage:\n- en\n- de\n"
      "pipeline_tag: text-generation\ntags:\n- llama\nbase_model: meta-llama/Llama-3.1-8B\n");
  const Metadata metadata = keys();
  EXPECT_EQ(metadata.get_string("general.name"), "Fancy");
  EXPECT_EQ(metadata.get_string("general.license"), "other");
  EXPECT_EQ(metadata.get_string("general.license.name"), "llama3.1");
  EXPECT_EQ(metadata.get_string("general.license.link"), "LICENSE");
  EXPECT_EQ(*metadata.find_string_array("general.languages"), (Strings{"en", "de"}));
  EXPECT_EQ(*metadata.find_string_array("general.tags"), (Strings{"llama", "text-generation"}));
  EXPECT_EQ(metadata.get_int("general.base_model.count"), 1);
  EXPECT_EQ(metadata.get_string("general.base_model.0.name"), "Llama 3.1 8B");
  EXPECT_EQ(metadata.get_string("general.base_model.0.organization"), "Meta Llama");
  EXPECT_TRUE(metadata.get_string("general.base_model.0.repo_url").ends_with("/meta-llama/Llama-3.1-8B"));
}

TEST_F(GeneralKeysTest, FlagsWinOverTheReadme) {
  readme("license: other\nlicense_name: llama3.1\nmodel_name: Fancy\nbase_model: a/b\n");
  ModelOptions options;
  options.name = "My-Model-9B-Chat";
  options.license = "mit";
  options.base_models = {"x/One-9B", "https://example.com/two"};
  const Metadata metadata = keys(options);
  EXPECT_EQ(metadata.get_string("general.name"), "My-Model-9B-Chat");
  EXPECT_EQ(metadata.get_string("general.basename"), "My-Model");
  EXPECT_EQ(metadata.get_string("general.license"), "mit");
  EXPECT_EQ(metadata.find("general.license.name"), nullptr);
  EXPECT_EQ(metadata.get_int("general.base_model.count"), 2);
  EXPECT_EQ(metadata.get_string("general.base_model.0.name"), "One 9B");
  EXPECT_EQ(metadata.get_string("general.base_model.1.repo_url"), "https://example.com/two");
}

TEST_F(GeneralKeysTest, TakeSamplingParametersFromTheGenerationConfig) {
  const Metadata metadata = keys({}, R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": "none"})");
  EXPECT_FLOAT_EQ(std::get<float>(*metadata.find("general.sampling.temp")), 0.6f);
  EXPECT_FLOAT_EQ(std::get<float>(*metadata.find("general.sampling.top_p")), 0.95f);
  EXPECT_EQ(std::get<int32_t>(*metadata.find("general.sampling.top_k")), 20);
  EXPECT_EQ(metadata.find("general.sampling.min_p"), nullptr);
  EXPECT_THAT(notes_, testing::ElementsAre(testing::HasSubstr("generation_config.json: 'min_p' is 'none', not a finite number; left out")));
  EXPECT_EQ(keys({}, R"({"do_sample": false, "temperature": 0.6})").find("general.sampling.temp"), nullptr);
}

TEST_F(GeneralKeysTest, NoteSamplingParametersThatAreNoNumbers) {
  EXPECT_EQ(keys({}, R"({"temperature": Infinity, "do_sample": "yes"})").find("general.sampling.temp"), nullptr);
  EXPECT_THAT(notes_, testing::ElementsAre(testing::HasSubstr("'do_sample'"), testing::HasSubstr("'temperature' is 'Infinity'")));
}

TEST_F(GeneralKeysTest, LeaveOutBaseModelsThatNoHubHas) {
  readme("base_model:\n- /home/me/llama\n- org/One-7B\n- ./out/checkpoint-100\n- a b\n- org/x/y\n");
  const Metadata metadata = keys();
  EXPECT_EQ(metadata.get_int("general.base_model.count"), 1);
  EXPECT_EQ(metadata.get_string("general.base_model.0.name"), "One 7B");
  EXPECT_EQ(notes_.size(), 4U);
  EXPECT_THAT(notes_, testing::Contains(testing::HasSubstr("base_model '/home/me/llama' is no repository")));
}

TEST_F(GeneralKeysTest, NoteAReadmeThatCannotBeRead) {
  std::filesystem::create_directories(folder_);
  test::write_text(folder_ / "README.md", "version https://git-lfs.github.com/spec/v1\n");
  keys();
  EXPECT_THAT(notes_, testing::ElementsAre(testing::HasSubstr("README.md: is a Git LFS pointer")));
}

}  // namespace
}  // namespace quern
