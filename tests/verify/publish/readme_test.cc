#include "verify/publish/readme.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string readme(const std::string& text) {
  Manifest manifest;
  manifest.quern_version = "1";
  manifest.base_model = "org/Model";
  manifest.revision = text;
  manifest.inputs = {{"imatrix", text, 1, "00"}};
  BuildRecord build;
  build.label = text;
  build.recipe = text;
  build.files = {{text, 1, "00", {}}};
  build.settings.set("quern.recipe", text);
  manifest.builds = {build};
  ReadmeFacts facts;
  facts.manifest = &manifest;
  facts.metadata.set("general.name", text);
  facts.metadata.set("general.license", text);
  facts.quantized_by = text;
  facts.machines = {{"a machine", text, 1, 1}};
  return make_readme(facts);
}

TEST(Readme, TakesNamesAsTheyAreWhereTheyMeanNothing) {
  const std::string text = readme("Mini-Q4_K_M");
  EXPECT_THAT(text, HasSubstr("# Mini-Q4_K_M, GGUF\n"));
  EXPECT_THAT(text, HasSubstr("[org/Model](https://huggingface.co/org/Model) at revision `Mini-Q4_K_M` for"));
  EXPECT_THAT(text, HasSubstr("| Mini-Q4_K_M | [Mini-Q4_K_M](Mini-Q4_K_M) |"));
}

TEST(Readme, LetsNoNameMeanAnything) {
  EXPECT_THAT(readme("a\n# b"), HasSubstr("# a # b, GGUF\n"));
  EXPECT_THAT(readme("x](http://evil) ["), HasSubstr("# x\\](http://evil) \\[, GGUF\n"));
  EXPECT_THAT(readme("<b>x</b>"), HasSubstr("# &lt;b&gt;x&lt;/b&gt;, GGUF"));
  EXPECT_THAT(readme("<b>"), HasSubstr("<summary>&lt;b&gt;: how"));
  EXPECT_THAT(readme("a|b"), HasSubstr("| a\\|b |"));
  EXPECT_THAT(readme("a`b"), HasSubstr("at revision `` a`b `` for"));
  EXPECT_THAT(readme("```\n# out"), HasSubstr("````\nquern.recipe = ```\n# out\n````\n"));
  EXPECT_THAT(readme("a\"\nb: c"), HasSubstr("license: \"a\\\" b: c\"\n"));
  EXPECT_THAT(readme("\xFF"), HasSubstr("quantized_by: \"\xEF\xBF\xBD\"\n"));
}

std::string readme_of(const Manifest& manifest, const std::string& key_id = "", const std::vector<MachineAdvice>& machines = {}) {
  ReadmeFacts facts;
  facts.manifest = &manifest;
  facts.metadata.set("general.architecture", std::string("llama"));
  facts.metadata.set("llama.context_length", uint64_t{1024});
  facts.key_id = key_id;
  facts.machines = machines;
  return make_readme(facts);
}

Manifest one_build(const std::string& recipe) {
  BuildRecord build;
  build.label = build.recipe = recipe;
  build.files = {{recipe + "/it's-00001-of-00002.gguf", 1, "00", {}}, {recipe + "/it's-00002-of-00002.gguf", 1, "00", {}}};
  build.settings.set("quern.recipe.json", std::string(1500, 'x'));
  Manifest manifest;
  manifest.builds = {build};
  return manifest;
}

TEST(Readme, SaysWhatIsTrueOfBuildsWithAndWithoutFeedback) {
  Manifest manifest = one_build("Q4_K_M");
  manifest.inputs = {{"calibration text", "", 1, "ab"}, {"imatrix", "", 1, "cd"}};
  const std::string plain = readme_of(manifest);
  EXPECT_THAT(plain, HasSubstr("anybody can derive the tensors again from the original"));
  EXPECT_THAT(plain, HasSubstr(", a calibration text, not published, with SHA-256 `ab`, an imatrix, not published"));
  EXPECT_THAT(plain, Not(HasSubstr("one read")));
  EXPECT_THAT(plain, Not(HasSubstr("feedback")));
  manifest.builds.front().settings.set("quern.feedback.mode", std::string("sequential"));
  manifest.builds.front().settings.set("quern.feedback.text", std::string("my text.txt"));
  manifest.builds.front().settings.set("quern.feedback.tokens", uint64_t{512});
  const std::string fed = readme_of(manifest);
  EXPECT_THAT(fed, HasSubstr("whoever has the original and the calibration text can derive"));
  EXPECT_THAT(fed, HasSubstr("Q4_K_M is encoded with error feedback, layer after layer"));
  EXPECT_THAT(fed, HasSubstr("--sample 5% --calib-text 'my text.txt'\n"));
}

TEST(Readme, NamesTheKeyOfASignedFolder) {
  EXPECT_THAT(readme_of(one_build("Q8_0")), Not(HasSubstr("--key")));
  const std::string text = readme_of(one_build("Q8_0"), "deb2");
  EXPECT_THAT(text, HasSubstr("sha256sum -c SHA256SUMS\nquern verify . --key PUB.pem\n"));
  EXPECT_THAT(text, HasSubstr("signed by the key `deb2`"));
}

TEST(Readme, LinksTheFileOfARecipeInsteadOfPrintingIt) {
  Manifest manifest = one_build("fit-9MB");
  manifest.inputs = {{"recipe", "fit-9MB.json", 1, "00"}};
  const std::string text = readme_of(manifest);
  EXPECT_THAT(text, HasSubstr("| fit-9MB | [fit-9MB.json](fit-9MB.json) |"));
  EXPECT_THAT(text, Not(HasSubstr("xxxx")));
}

TEST(Readme, HasCommandsThatFetchAndRunABuild) {
  const std::string text = readme_of(one_build("Q8_0"));
  EXPECT_THAT(text, HasSubstr("hf download OWNER/NAME --include 'Q8_0/*' --local-dir .\n"));
  EXPECT_THAT(text, HasSubstr("llama-cli -hf OWNER/NAME --hf-file 'Q8_0/it'\\''s-00001-of-00002.gguf'\n"));
}

TEST(Readme, AdvisesForContextsThatTheModelHas) {
  const std::string text = readme_of(one_build("Q8_0"), "", {{"a machine", "Q8_0", 1, 12.7}});
  EXPECT_THAT(text, HasSubstr("a context of 1024 tokens"));
  EXPECT_THAT(text, HasSubstr("≤ 13 |"));
  EXPECT_EQ(advice_context({}), 8192);
}

}  // namespace
}  // namespace quern
