#pragma once

#include <vector>

#include "convert/plan.h"

namespace quern {

// The step of planning that gives every tensor of every output its type.

struct WantedOutput {
  Recipe recipe;             // with the overrides of --tensor-type as its first rules
  const Mix* mix = nullptr;  // when nothing but a named mix is wanted, overrides aside
  bool lossless = false;     // every rule keeps every value
};

// Mixes first, then recipes. Overrides apply to all but lossless ones. Options that cannot be read are left out: check_options
// reports them.
std::vector<WantedOutput> wanted_outputs(const PlanOptions& options);

// One type per planned tensor, or nothing when the recipe cannot be used on this model.
std::optional<std::vector<DType>> planned_types(const ModelSource& source, const WantedOutput& wanted,
                                                const std::vector<PlannedTensor>& selected, bool have_imatrix,
                                                std::vector<std::string>& notes, std::vector<Problem>& problems);

// The type that most weights of an output have.
DType dominant_type(const Plan& plan, const PlannedOutput& output);

// The keys that say how an output was made: general.file_type, quern.recipe and, unless the name of a mix says it all,
// quern.recipe.json with its hash quern.recipe.sha256.
void set_recipe_keys(const Plan& plan, const WantedOutput& wanted, PlannedOutput& output);

}  // namespace quern
