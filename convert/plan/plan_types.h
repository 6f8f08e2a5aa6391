#pragma once

#include <vector>

#include "convert/plan/plan.h"
#include "convert/plan/plan_options.h"
#include "formats/base/problems.h"

namespace quern {

// The step of planning that gives every tensor of every output its type.

struct WantedOutput {
  Recipe recipe;             // with the overrides of --tensor-type as its first rules
  const Mix* mix = nullptr;  // that decides what no other rule does
  bool lossless = false;     // every rule keeps every value
  size_t n_overrides = 0;    // how many of the rules are overrides
};

// That of the options, else the one that recipes ask for: all outputs are encoded together. Recipes that ask for different ones are a
// problem.
Effort wanted_effort(const PlanOptions& options, std::vector<Problem>& problems);

// Mixes first, then recipes, each with the effort in its recipe unless it is the default. Overrides apply to all but lossless ones. Options
// that cannot be read are left out: check_options reports them.
std::vector<WantedOutput> wanted_outputs(const PlanOptions& options, Effort effort);

// One choice per planned tensor, or nothing when the recipe cannot be used on this model.
std::optional<std::vector<TypeChoice>> planned_types(const ModelSource& source, const WantedOutput& wanted,
                                                     const std::vector<PlannedTensor>& selected, bool have_imatrix,
                                                     std::vector<Problem>& problems);

// The type that most weights of an output have.
DType dominant_type(const Plan& plan, const PlannedOutput& output);

// The keys that say how an output was made: those of its container for the mixture of types, quern.recipe and, unless the name of a mix
// says it all, quern.recipe.json with its hash quern.recipe.sha256.
void set_recipe_keys(const Plan& plan, const WantedOutput& wanted, PlannedOutput& output);

}  // namespace quern
