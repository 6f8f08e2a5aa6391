#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "convert/plan/calibration.h"
#include "convert/plan/plan.h"
#include "formats/model/model_source.h"
#include "recipes/recipe.h"

namespace quern {

// What a plan says of a build, and builds for those who measure or compare them without writing them.

// Bytes of all files of an output.
uint64_t size_of(const PlannedOutput& output);

// Stored bits of an output's tensors divided by the weights of the plan.
double bits_per_weight(const Plan& plan, const PlannedOutput& output);

// A file that convert would write.
struct PlannedBuild {
  std::string name;
  std::vector<DType> types;  // one per tensor of the model
  uint64_t size_bytes = 0;   // of the finished file
};

// The same of a build that is not written: as its file will say.
double bits_per_weight(const ModelSource& source, const PlannedBuild& build);

// Types and exact sizes for recipes and named mixes, in this order. Recipes that cannot be used on this model are left out when there
// are several; for a single one the problem is thrown.
std::vector<PlannedBuild> plan_builds(const ModelSource& source, const std::filesystem::path& model, const std::vector<Recipe>& recipes,
                                      const std::vector<std::string>& mixes, const Calibration& calibration = {});

// The types of an output's tensors, one per tensor of the plan.
std::vector<DType> types_of(const PlannedOutput& output);

// The types that an output of the plan gives the tensors of the model; those that it leaves out stay as they are.
std::vector<DType> types_of_build(const ModelSource& source, const Plan& plan, const PlannedOutput& output);

}  // namespace quern
