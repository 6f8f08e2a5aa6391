#pragma once

#include <vector>

#include "convert/plan/plan.h"
#include "formats/base/problems.h"
#include "formats/model/model_source.h"

namespace quern {

// Whether the outputs can be created: files in the way, two outputs of one name, too little space, unfinished work of another plan.
std::vector<Problem> check_destination(const Plan& plan);

// Appends these problems, and those of a folder that lies inside the source. A plan without outputs has none.
void check_files(const Plan& plan, const ModelSource& source, std::vector<Problem>& problems);

}  // namespace quern
