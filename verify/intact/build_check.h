#pragma once

#include <map>
#include <string>
#include <vector>

#include "formats/base/progress.h"
#include "verify/records/published.h"

namespace quern {

// Reads every file of a build once, compares it with the record and names what differs: contents, metadata, GGUF structure, weights
// that are not finite. Adds the sum of each file that is there to `actual_sums`.
void check_build(const PublishedFolder& folder, const BuildRecord& build, std::map<std::string, std::string>& actual_sums,
                 std::vector<Finding>& findings, Progress& progress);

// Checks a GGUF file (first shard) of which nothing is recorded, so that only structure and weights can be wrong.
void check_unrecorded(const std::filesystem::path& first_shard, std::vector<Finding>& findings, Progress& progress);

}  // namespace quern
