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

// Checks a file of which nothing is recorded, so that only structure and weights can be wrong, and that the others of its set are there.
// Its sum; empty when it could not be read.
std::string check_unrecorded(const Container& container, const std::filesystem::path& folder, const std::string& name,
                             std::vector<Finding>& findings, Progress& progress);
// The names of the files that belong to a model together, by what the header of one says; its own alone when that says nothing.
std::vector<std::string> files_of_set(const Container& container, const std::filesystem::path& folder, const std::string& name);

}  // namespace quern
