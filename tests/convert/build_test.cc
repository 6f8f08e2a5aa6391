#include "convert/build.h"

#include <gmock/gmock.h>

#include "convert/plan/plan_json.h"
#include "tests/convert/conversion.h"

namespace quern::test {
namespace {

using testing::HasSubstr;

BuildOptions build_of(const std::filesystem::path& model, const std::filesystem::path& folder, std::vector<std::string> types) {
  BuildOptions options;
  options.model = model;
  options.plan = options_for(folder, std::move(types));
  return options;
}

TEST(OpenBuild, CollectsWhatIsWrongWithModelAndOptions) {
  const TempDir dir;
  const OpenedBuild opened = open_build(build_of(dir / "no-model", dir / "out", {"Q4_9"}));
  EXPECT_FALSE(opened.plan);
  EXPECT_EQ(opened.problems.size(), 2u);
  EXPECT_THAT(messages(opened.problems), HasSubstr("Q4_9"));
  EXPECT_THAT(messages(opened.problems), HasSubstr("no-model"));
}

TEST(OpenBuild, MakesTheFilesOfThePlan) {
  const TempDir dir;
  OpenedBuild opened = open_build(build_of(bundled("mini-llama3"), dir / "a", {"Q4_0", "Q8_0"}));
  ASSERT_EQ(messages(opened.problems), "");
  run_build(opened, *opened.plan, no_progress());
  convert(bundled("mini-llama3"), options_for(dir / "b", {"Q4_0", "Q8_0"}));
  EXPECT_EQ(hashes(dir / "a"), hashes(dir / "b"));
}

TEST(OpenPlanned, RefusesAnotherModel) {
  const TempDir dir;
  const OpenedBuild opened = open_build(build_of(bundled("mini-llama3"), dir / "out", {"Q8_0"}));
  ASSERT_TRUE(opened.plan);
  Plan plan = plan_from_json(plan_to_json(*opened.plan));
  EXPECT_EQ(messages(open_planned(plan, false, false).problems), "");
  plan.model = bundled("mini-qwen3");
  const OpenedBuild other = open_planned(plan, false, false);
  EXPECT_FALSE(other.plan);
  EXPECT_EQ(other.problems.size(), 1u);
}

}  // namespace
}  // namespace quern::test
