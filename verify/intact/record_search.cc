#include "verify/intact/record_search.h"

#include <algorithm>
#include <map>
#include <optional>

#include "formats/base/error.h"
#include "formats/containers/container.h"
#include "verify/intact/file_scan.h"
#include "verify/records/signature.h"

// People download builds in many ways: the whole folder, one build of it, everything into one folder, into the cache of a hub, under a name
// of their own. The records name files relative to the folder that was published, so first the nearest folder with records is taken, and
// then every recorded file is looked for: under its name beside what was asked for, under its name, under its last name anywhere. What is
// left over on either side is compared by sum, which costs a reading, and so only where sizes agree. A record that says nothing of what was
// asked for is passed by, and the search goes on above.

namespace quern {
namespace fs = std::filesystem;
namespace {

constexpr int kFoldersAbove = 2;

std::string last_name(const std::string& file) { return file.substr(file.rfind('/') + 1); }

bool is_document(const std::string& file) { return file == kManifestName || file == kSumsName || file == kAttestationName; }

bool is_model_file(const std::string& file) {
  return std::ranges::any_of(all_containers(), [&](const Container* c) { return c->is_file_name(last_name(file)); });
}

// Gives recorded files their places in a folder.
class Recognition {
 public:
  // asked: files, relative to the folder, that are meant before others of their name. is_beside: the records lie in the folder of these;
  // others may speak of quite different files of the same name, unless they are records of builds.
  Recognition(PublishedFolder& folder, const std::set<std::string>& asked, bool is_beside)
      : folder_(folder), asked_(asked), is_beside_(is_beside) {
    for (const Sum& sum : recorded_sums(folder)) {
      if (is_model_file(sum.name)) recorded_.try_emplace(sum.name, sum.sha256);
    }
    for (const BuildRecord& build : folder.builds) {
      for (const FileRecord& file : build.files) {
        recorded_.try_emplace(file.name, file.sha256);
        sizes_[file.name] = file.size_bytes;
      }
    }
  }

  void run() {
    std::map<std::string, std::vector<std::string>> by_last_name;
    for (const auto& [name, sha256] : recorded_) by_last_name[last_name(name)].push_back(name);
    for (const std::string& file : asked_) place_by_name(file, by_last_name);
    for (const auto& [name, sha256] : recorded_) {
      if (folder_.has(name) && !folder_.places.contains(name)) taken_.insert(name);
    }
    for (const std::string& file : folder_.files) place_by_name(file, by_last_name);
    for (const std::string& file : folder_.files) place_by_sum(file);
  }

 private:
  bool is_here(const std::string& name) const { return folder_.places.contains(name) || taken_.contains(name); }

  void place(const std::string& name, const std::string& file) {
    taken_.insert(file);
    if (name != file) folder_.places[name] = file;
  }

  // A file whose last name is recorded once.
  void place_by_name(const std::string& file, const std::map<std::string, std::vector<std::string>>& by_last_name) {
    if (taken_.contains(file) || is_document(file)) return;
    if (recorded_.contains(file)) return place(file, file);
    const auto found = by_last_name.find(last_name(file));
    if (found == by_last_name.end() || found->second.size() != 1) return;
    const std::string& name = found->second.front();
    if (!is_here(name) && (is_beside_ || sizes_.contains(name))) place(name, file);
  }

  // A file of another name. One that was asked for may also be a copy of a recorded file that is here.
  void place_by_sum(const std::string& file) {
    if (taken_.contains(file) || is_document(file) || !(is_model_file(file) || asked_.contains(file))) return;
    std::optional<std::string> sum;
    std::error_code ignored;
    for (const auto& [name, sha256] : recorded_) {
      if (is_here(name) && !asked_.contains(file)) continue;
      const auto size = sizes_.find(name);
      if (size == sizes_.end() ? !is_beside_ : size->second != fs::file_size(folder_.path / file, ignored)) continue;
      if (!sum) sum = hash_file(folder_.path / file, no_progress());
      if (*sum == sha256) return place(name, file);
    }
  }

  PublishedFolder& folder_;
  const std::set<std::string>& asked_;
  const bool is_beside_;
  std::map<std::string, std::string> recorded_;  // and their sums
  std::map<std::string, uint64_t> sizes_;        // as far as they are known
  std::set<std::string> taken_;                  // files that are recorded ones
};

// Whether one of the files that were asked for is the place of a recorded file that `names` takes.
bool speaks_of(const FoundRecords& found, const std::string& name) {
  const auto place = found.folder.places.find(name);
  return found.asked.contains(place == found.folder.places.end() ? name : place->second);
}

bool is_of(const FoundRecords& found, const BuildRecord& build) {
  return std::ranges::any_of(build.files, [&](const FileRecord& file) { return speaks_of(found, file.name); });
}

void set_absent_builds_aside(FoundRecords& found) {
  std::vector<BuildRecord> here;
  for (BuildRecord& build : found.folder.builds) {
    const bool absent = std::ranges::none_of(build.files, [&](const FileRecord& file) { return found.folder.has(file.name); });
    (absent ? found.absent : here).push_back(std::move(build));
  }
  found.folder.builds = std::move(here);
}

// Adds the files of `from`, which may lie deeper than the folder lists; all of them were asked for, or the one.
void ask_for(FoundRecords& found, const fs::path& from, const std::optional<std::string>& file) {
  const std::string prefix = from == found.folder.path ? "" : from.lexically_relative(found.folder.path).generic_string() + "/";
  std::set<std::string> all(found.folder.files.begin(), found.folder.files.end());
  for (const std::string& name : list_published_files(from)) {
    all.insert(prefix + name);
    if (!file) found.asked.insert(prefix + name);
  }
  if (file) found.asked.insert(prefix + *file);
  all.insert(found.asked.begin(), found.asked.end());
  found.folder.files.assign(all.begin(), all.end());
}

// The records of `folder`, when they speak of the file in `from`, or of any of its files.
std::optional<FoundRecords> records_in(const fs::path& folder, const fs::path& from, const std::optional<std::string>& file,
                                       std::vector<Finding>& findings) {
  if (!has_records(folder)) return std::nullopt;
  FoundRecords found;
  found.folder = open_published(folder, findings);
  found.is_part = file.has_value() || folder != from;
  if (found.is_part) ask_for(found, from, file);
  Recognition(found.folder, found.asked, folder == from).run();
  if (!found.is_part) {
    set_absent_builds_aside(found);
    return found;
  }
  const std::vector<Sum> sums = recorded_sums(found.folder);
  if (std::ranges::none_of(sums, [&](const Sum& sum) { return speaks_of(found, sum.name); })) return std::nullopt;
  std::erase_if(found.folder.builds, [&](const BuildRecord& build) { return !is_of(found, build); });
  return found;
}

}  // namespace

std::vector<Sum> recorded_sums(const PublishedFolder& folder) {
  std::vector<Sum> sums;
  for (const BuildRecord& build : folder.builds) {
    for (const FileRecord& file : build.files) sums.push_back({file.name, file.sha256});
  }
  if (folder.sums) sums.insert(sums.end(), folder.sums->begin(), folder.sums->end());
  if (!folder.attestation) return sums;
  try {
    for (const Subject& subject : statement_subjects(parse_envelope(*folder.attestation).payload))
      sums.push_back({subject.name, subject.sha256});
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kFormat) throw;  // what is wrong with it is said by the check of the signature
  }
  return sums;
}

FoundRecords find_records(const fs::path& path, std::vector<Finding>& findings) {
  const bool is_folder = fs::is_directory(path);
  std::vector<Finding> of_nearest;  // what is wrong with records beside the path, in case that nothing else speaks of it
  std::vector<fs::path> starts = {fs::absolute(path).lexically_normal()};
  if (!starts.front().has_filename()) starts.front() = starts.front().parent_path();  // "repo/"
  if (const fs::path led_to = fs::canonical(path); led_to != starts.front()) starts.push_back(led_to);
  for (const fs::path& start : starts) {
    const fs::path from = is_folder ? start : start.parent_path();
    const std::optional<std::string> file = is_folder ? std::nullopt : std::optional(start.filename().string());
    fs::path folder = from;
    for (int above = 0; above <= kFoldersAbove; ++above, folder = folder.parent_path()) {
      std::vector<Finding> of_records;
      if (std::optional<FoundRecords> found = records_in(folder, from, file, of_records)) {
        findings.insert(findings.end(), of_records.begin(), of_records.end());
        return std::move(*found);
      }
      if (above == 0 && &start == &starts.front()) of_nearest = std::move(of_records);
      if (folder == folder.parent_path()) break;
    }
  }
  for (Finding& finding : of_nearest) {
    finding.verdict = Verdict::kUnprovable;  // they may be no records at all
    findings.push_back(std::move(finding));
  }
  FoundRecords none;
  none.is_part = !is_folder;
  none.folder.path = is_folder ? starts.front() : starts.front().parent_path();
  none.folder.files = is_folder ? list_published_files(path) : std::vector<std::string>{starts.front().filename().string()};
  if (!is_folder) none.asked = {none.folder.files.front()};
  return none;
}

}  // namespace quern
