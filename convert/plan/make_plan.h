#pragma once

#include <filesystem>
#include <vector>

#include "convert/plan/calibration.h"
#include "convert/plan/plan.h"
#include "convert/plan/plan_options.h"
#include "formats/base/problems.h"
#include "formats/model/model_source.h"

namespace quern {

// Plans a conversion without reading tensor data. `model` is the path that was opened. Problems are appended to `problems`; with any,
// the plan must not be run. Whether the files can be created is for check_files (convert/fill/destination.h) to say.
// calibration: what the outputs will be encoded with; keys of the outputs and notes tell of it.
Plan make_plan(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options, std::vector<Problem>& problems,
               const Calibration& calibration = {});

// The outputs alone, with exact names, types and sizes of files: for a source that may have no weights (open_outline).
Plan plan_outputs(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options, std::vector<Problem>& problems,
                  const Calibration& calibration = {});

}  // namespace quern
