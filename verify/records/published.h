#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "verify/records/finding.h"
#include "verify/records/manifest.h"

namespace quern {

// What lies in a folder and what its own documents say about it. Documents that cannot be read become findings.
struct PublishedFolder {
  std::filesystem::path path;
  std::vector<std::string> files;             // all regular files, relative, at most one folder deep, sorted; hidden ones left out
  std::map<std::string, std::string> places;  // recorded files that lie here under other names or in other folders: where
  std::optional<Manifest> manifest;           // its builds are in `builds`
  std::vector<BuildRecord> builds;            // of the manifest or, without one, of the *.tensors.json files
  std::optional<std::vector<Sum>> sums;       // SHA256SUMS
  std::optional<std::string> attestation;     // text of the file

  // Of a recorded file: whether it is here, and its path.
  bool has(const std::string& file) const;
  std::filesystem::path locate(const std::string& file) const;
  const Sum* find_sum(const std::string& file) const;
};

// All regular files, as in PublishedFolder::files.
std::vector<std::string> list_published_files(const std::filesystem::path& folder);

// Whether something in the folder itself says what files are: a manifest, sums, an attestation or a list that convert wrote.
bool has_records(const std::filesystem::path& folder);

PublishedFolder open_published(const std::filesystem::path& folder, std::vector<Finding>& findings);

}  // namespace quern
