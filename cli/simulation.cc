#include "cli/simulation.h"

#include "convert/plan/make_plan.h"
#include "formats/base/error.h"

namespace quern::cli {

std::vector<PlannedBuild> plan_builds(const ModelSource& source, const std::filesystem::path& model, const std::vector<Recipe>& recipes,
                                      const std::vector<std::string>& mixes, const Importance* importance) {
  PlanOptions options;
  options.output = ".";
  options.recipes = recipes;
  options.types = mixes;
  options.importance = importance;
  options.force = true;
  std::vector<Problem> problems;  // those of the place where the files would be written do not matter here
  const Plan plan = make_plan(source, model, options, problems);
  if (plan.outputs.empty() && !problems.empty()) throw Error(problems.front().kind, problems.front().message);
  std::vector<PlannedBuild> builds;
  for (const PlannedOutput& output : plan.outputs) {
    PlannedBuild build{output.mix, std::vector<DType>(source.tensors().size()), 0};
    for (size_t t = 0; t < plan.tensors.size(); ++t) build.types[plan.tensors[t].source_index] = output.tensors[t].type;
    for (const PlannedFile& file : output.files) build.size_bytes += file.size_bytes;
    builds.push_back(std::move(build));
  }
  return builds;
}

}  // namespace quern::cli
