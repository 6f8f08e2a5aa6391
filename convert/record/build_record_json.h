#pragma once

#include <nlohmann/json_fwd.hpp>

#include "convert/record/build_record.h"

namespace quern {

// build_record_from_json for a record inside another document.
BuildRecord build_record_from_tree(const nlohmann::json& root);

}  // namespace quern
