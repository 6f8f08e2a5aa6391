#include "convert/plan/planned_build.h"

#include "convert/plan/make_plan.h"
#include "formats/base/error.h"

namespace quern {

uint64_t size_of(const PlannedOutput& output) {
  uint64_t size = 0;
  for (const PlannedFile& file : output.files) size += file.size_bytes;
  return size;
}

double bits_per_weight(const Plan& plan, const PlannedOutput& output) {
  return 8.0 * static_cast<double>(output.tensor_bytes) / static_cast<double>(plan.n_weights());
}

double bits_per_weight(const ModelSource& source, const PlannedBuild& build) {
  double bits = 0.0, weights = 0.0;
  for (size_t i = 0; i < build.types.size(); ++i) {
    const Shape& shape = source.tensors()[i].shape;
    bits += 8.0 * static_cast<double>(tensor_size_bytes(build.types[i], shape));
    weights += static_cast<double>(shape.n_elements());
  }
  return bits / weights;
}

std::vector<DType> types_of(const PlannedOutput& output) {
  std::vector<DType> types;
  for (const Placement& placement : output.tensors) types.push_back(placement.type);
  return types;
}

std::vector<DType> types_of_build(const ModelSource& source, const Plan& plan, const PlannedOutput& output) {
  std::vector<DType> types;
  for (const LogicalTensor& tensor : source.tensors()) types.push_back(tensor.source_type);
  for (size_t t = 0; t < plan.tensors.size(); ++t) types[plan.tensors[t].source_index] = output.tensors[t].type;
  return types;
}

std::vector<PlannedBuild> plan_builds(const ModelSource& source, const std::filesystem::path& model, const std::vector<Recipe>& recipes,
                                      const std::vector<std::string>& mixes, const Calibration& calibration) {
  PlanOptions options;
  options.output = ".";
  options.recipes = recipes;
  options.types = mixes;
  options.force = true;
  std::vector<Problem> problems;  // those of the place where the files would be written do not matter here
  const Plan plan = make_plan(source, model, options, problems, calibration);
  if (plan.outputs.empty() && !problems.empty()) throw Error(problems.front().kind, problems.front().message);
  std::vector<PlannedBuild> builds;
  for (const PlannedOutput& output : plan.outputs) {
    builds.push_back({output.mix, types_of_build(source, plan, output), size_of(output)});
  }
  return builds;
}

}  // namespace quern
