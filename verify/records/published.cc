#include "verify/records/published.h"

#include <algorithm>

#include "convert/record/build_record_json.h"
#include "formats/base/error.h"
#include "formats/base/file.h"

namespace quern {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxDocumentBytes = uint64_t{1} << 30;
constexpr std::string_view kRecordEnd = ".tensors.json";

void list_files(const fs::path& folder, const std::string& prefix, std::vector<std::string>& files) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, fs::directory_options::skip_permission_denied)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".")) continue;
    if (entry.is_regular_file()) files.push_back(prefix + name);
    if (entry.is_directory() && prefix.empty()) list_files(entry.path(), name + "/", files);
  }
}

// Runs `read` when the document is there; what it throws is a finding.
template <typename Read>
void read_document(PublishedFolder& folder, const std::string& name, const char* check, const char* kind, std::vector<Finding>& findings,
                   const Read& read) {
  if (!folder.has(name)) return;
  try {
    read(read_text_file(folder.path / name, kMaxDocumentBytes));
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal || error.kind() == ErrorKind::kInterrupted) throw;
    findings.push_back(damage(check, kind, name, "cannot be read: " + error.message()));
  }
}

}  // namespace

bool PublishedFolder::has(const std::string& file) const { return places.contains(file) || std::ranges::binary_search(files, file); }

fs::path PublishedFolder::locate(const std::string& file) const {
  const auto place = places.find(file);
  return path / (place == places.end() ? file : place->second);
}

const Sum* PublishedFolder::find_sum(const std::string& file) const {
  if (!sums) return nullptr;
  const auto found = std::ranges::find(*sums, file, &Sum::name);
  return found == sums->end() ? nullptr : &*found;
}

std::vector<std::string> list_published_files(const fs::path& folder) {
  std::vector<std::string> files;
  list_files(folder, "", files);
  std::ranges::sort(files);
  return files;
}

bool has_records(const fs::path& folder) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name == kManifestName || name == kSumsName || name == kAttestationName || name.ends_with(kRecordEnd)) return true;
  }
  return false;
}

PublishedFolder open_published(const fs::path& path, std::vector<Finding>& findings) {
  PublishedFolder folder;
  folder.path = path;
  folder.files = list_published_files(path);
  read_document(folder, kManifestName, "manifest", "changed-manifest", findings, [&](const std::string& text) {
    folder.manifest = manifest_from_json(text);
    folder.builds = std::move(folder.manifest->builds);
  });
  if (!folder.has(kManifestName)) {
    for (const std::string& name : folder.files) {
      if (!name.ends_with(kRecordEnd)) continue;
      read_document(folder, name, "manifest", "changed-record", findings,
                    [&](const std::string& text) { folder.builds.push_back(build_record_from_json(text)); });
    }
  }
  read_document(folder, kSumsName, "sums", "changed-sums", findings, [&](const std::string& text) { folder.sums = parse_sums(text); });
  read_document(folder, kAttestationName, "signature", "changed-attestation", findings,
                [&](const std::string& text) { folder.attestation = text; });
  return folder;
}

}  // namespace quern
