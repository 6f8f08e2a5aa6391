#pragma once

#include <vector>

#include "convert/plan/plan.h"
#include "convert/plan/plan_options.h"
#include "convert/plan/plan_types.h"
#include "formats/model/model_source.h"
#include "recipes/mix.h"

namespace quern {

// The steps of planning that tell the user which choices were made in his place. Each appends to the notes or warnings of the plan.

// What --tensor-type finds beyond what was meant, and patterns for which earlier ones leave nothing.
void note_overrides(const ModelSource& source, const PlanOptions& options, Plan& plan);

// Of an output whose tensors got `choices`, one per tensor of the plan: how many have another type because blocks do not divide their rows,
// those among them that --tensor-type asked for, and rules with a name that decide nothing.
void note_choices(const WantedOutput& wanted, const PlanOptions& options, const std::vector<TypeChoice>& choices, Plan& plan);

}  // namespace quern
