#include "verify/publish/readme.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using testing::HasSubstr;

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

}  // namespace
}  // namespace quern
