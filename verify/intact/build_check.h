#pragma once

#include <map>
#include <string>
#include <vector>

#include "formats/base/progress.h"
#include "verify/records/published.h"

namespace quern {

// Reads every file of a build once, compares it with the record and names what differs: contents, metadata, structure, weights
// that are not finite. Adds the sum of each file that is there to `actual_sums`.
void check_build(const PublishedFolder& folder, const BuildRecord& build, std::map<std::string, std::string>& actual_sums,
                 std::vector<Finding>& findings, Progress& progress);

// Checks a build of which nothing is recorded, by its first file, so that only structure and weights can be wrong.
void check_unrecorded(const Container& container, const std::filesystem::path& first, std::vector<Finding>& findings, Progress& progress);

}  // namespace quern
