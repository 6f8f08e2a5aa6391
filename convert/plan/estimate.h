#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "convert/plan/plan.h"
#include "convert/plan/plan_options.h"
#include "formats/model/model_outline.h"
#include "recipes/machines.h"
#include "recipes/size_estimate.h"

namespace quern {

// What builds would weigh and cost before anything is built, and before a model is downloaded: `quern plan` (docs/plan.md).

struct BuildEstimate {
  std::string name;
  uint64_t tensor_bytes = 0;
  uint64_t file_bytes = 0;  // exact when the outline has a tokenizer
  RunCost cost;
};

// The shipped recipes that this model can have: not every checkpoint has a lossless build. options: everything but the recipes.
std::vector<Recipe> possible_recipes(const ModelSource& source, const PlanOptions& options);

// One estimate per output of the plan that plan_outputs() made for the outline. context: tokens that the cache is for.
std::vector<BuildEstimate> estimate_builds(const ModelOutline& outline, const Plan& plan, int64_t context);

double bits_per_weight(const BuildEstimate& estimate, int64_t n_weights);

// "yes", "raised limit", "no".
const char* verdict_name(MachineFit::Verdict verdict);

// "quern.estimate/1", with a newline.
std::string estimates_to_json(const ModelOutline& outline, const Plan& plan, std::span<const BuildEstimate> estimates,
                              std::span<const Machine> machines, int64_t context);

}  // namespace quern
