#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "verify/records/published.h"

namespace quern {

// The records that speak of a file or folder, and which of its files are which of theirs.
struct FoundRecords {
  PublishedFolder folder;           // of the records; of the path itself when there are none
  bool is_part = false;             // only some of the folder was asked for: `asked`, and its builds are those that they belong to
  std::set<std::string> asked;      // files, relative to the folder
  std::vector<BuildRecord> absent;  // builds that are recorded and of which no file is here; taken out of folder.builds
};

// Looks for records in the folder of a file, or in a folder itself, and up to two folders above; for links also where they lead. A file is
// recognised by its name, by its name without folders, as downloads into one folder leave it, or by its sum. What cannot be read of the
// records that were found becomes findings.
FoundRecords find_records(const std::filesystem::path& path, std::vector<Finding>& findings);

// The names that anything of the folder records, with sums: files of builds, SHA256SUMS, the statement.
std::vector<Sum> recorded_sums(const PublishedFolder& folder);

}  // namespace quern
