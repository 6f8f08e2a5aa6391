#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "convert/plan/plan.h"

namespace quern {

// A plan as JSON (docs/formats/plan.md).
std::string plan_to_json(const Plan& plan);
// Reads hostile text. Throws kFormat unless everything fits together: sizes and offsets are those that planning gives to these
// tensors, types and metadata, and names are plain.
Plan plan_from_json(std::string_view text);
Plan read_plan(const std::filesystem::path& file);

}  // namespace quern
