#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/plan/plan.h"
#include "formats/model/model_source.h"
#include "formats/statistics/importance.h"
#include "recipes/recipe.h"

namespace quern::cli {

// What the verbs that measure builds without writing them have in common.

// A file that convert would write.
struct PlannedBuild {
  std::string name;
  std::vector<DType> types;  // one per tensor of the model
  uint64_t size_bytes = 0;   // of the finished file
};

// Types and exact sizes for recipes and named mixes, in this order. Recipes that cannot be used on this model are left out when there
// are several; for a single one the problem is thrown.
std::vector<PlannedBuild> plan_builds(const ModelSource& source, const std::filesystem::path& model, const std::vector<Recipe>& recipes,
                                      const std::vector<std::string>& mixes, const Importance* importance);

}  // namespace quern::cli
