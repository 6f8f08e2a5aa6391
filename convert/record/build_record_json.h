#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "convert/record/build_record.h"

namespace quern {

// One line per tensor.
std::string build_record_to_json(const BuildRecord& record);
// Throws kFormat for what is not such a record: wrong types of fields, names that lead out of the folder, impossible shapes, files
// that do not exist in the record, sums that are not 64 hex digits.
BuildRecord build_record_from_json(std::string_view text);
// build_record_from_json for a record inside another document.
BuildRecord build_record_from_tree(const nlohmann::json& root);

}  // namespace quern
