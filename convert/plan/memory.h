#pragma once

#include <cstdint>
#include <vector>

#include "convert/plan/plan.h"
#include "formats/base/problems.h"
#include "formats/model/model_source.h"

namespace quern {

// The step of planning that decides on the rows per chunk, so that a run stays within its memory. memory_bytes: 0 for
// default_memory_budget(); feedback_bytes: what error feedback keeps. A budget below what one chunk of the widest tensor needs is a
// problem.
void plan_memory(const ModelSource& source, uint64_t memory_bytes, uint64_t feedback_bytes, Plan& plan, std::vector<Problem>& problems);

// A budget below smallest_bytes, the least that works, is a problem.
void check_memory(const Plan& plan, uint64_t smallest_bytes, std::vector<Problem>& problems);

// How many chunks may be in work at once under the plan's budget: at least 1, at most what keeps n_threads busy.
int chunks_in_flight(const Plan& plan, int n_threads);
// Peak resident memory that follows from it, with what runs beside the build.
uint64_t predicted_memory(const Plan& plan, int n_threads);

}  // namespace quern
