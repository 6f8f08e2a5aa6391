#include "convert/fill/destination.h"

#include <algorithm>
#include <set>
#include <string>

#include "convert/fill/journal.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"

namespace quern {
namespace fs = std::filesystem;
namespace {

// The path with links and ".." resolved as far as it exists.
fs::path resolved(const fs::path& path) {
  std::error_code ignored;
  const fs::path result = fs::weakly_canonical(fs::absolute(path), ignored);
  return result.has_filename() ? result : result.parent_path();
}

bool lies_in(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

void check_source_folder(const Plan& plan, const ModelSource& source, std::vector<Problem>& problems) {
  const fs::path folder = resolved(plan.folder);
  if (fs::is_directory(plan.model) && lies_in(folder, resolved(plan.model))) {
    problems.push_back({ErrorKind::kUsage, "the output folder '" + printable(plan.folder.string()) +
                                               "' lies inside the source folder; choose one outside it"});
    return;
  }
  for (const PlannedOutput& output : plan.outputs) {
    for (const OutputFileInfo& file : files_of(output)) {
      const std::string& name = file.name;
      for (const SourceFile& read : source.files()) {
        if (resolved(read.path) == folder / name) {
          problems.push_back({ErrorKind::kUsage, "'" + printable(name) + "' would replace the file that is read"});
        }
      }
    }
  }
}

// A run that all was written in, but for the names: files that have theirs are not in the way.
bool is_written(const Plan& run, const JournalReading& journal) { return journal.begun && journal.begun->n_chunks == Chunks(run).count(); }

// seen: names of the files of all runs so far.
void check_existing(const Plan& plan, bool written, std::set<std::string>& seen, std::vector<Problem>& problems) {
  for (const PlannedOutput& output : plan.outputs) {
    for (const OutputFileInfo& file : files_of(output)) {
      const std::string& name = file.name;
      if (!seen.insert(name).second) problems.push_back({ErrorKind::kUsage, "two outputs are named '" + printable(name) + "'"});
      const fs::path path = plan.folder / name;
      std::error_code ignored;
      const fs::file_status status = fs::symlink_status(path, ignored);
      if (fs::is_directory(status)) {
        problems.push_back({ErrorKind::kUsage, "'" + printable(path.string()) + "' is a folder"});
      } else if (fs::exists(status) && !plan.force && !written) {
        problems.push_back({ErrorKind::kUsage, "'" + printable(path.string()) + "' exists; --force replaces it"});
      }
    }
  }
}

void check_space(const Plan& plan, std::vector<Problem>& problems) {
  const uint64_t free_bytes = free_space_bytes(plan.folder),
                 needed = plan.output_bytes() - std::min(plan.output_bytes(), begun_bytes(plan));
  if (needed > free_bytes) {
    problems.push_back({ErrorKind::kIo, "'" + printable(plan.folder.string()) + "' has " + format_size(free_bytes) +
                                            " free, the outputs need " + format_size(needed)});
  }
}

}  // namespace

void check_files(const Plan& plan, const ModelSource& source, std::vector<Problem>& problems) {
  if (plan.outputs.empty()) return;
  const std::vector<Problem> found = check_destination(plan);
  problems.insert(problems.end(), found.begin(), found.end());
  check_source_folder(plan, source, problems);
}

std::vector<Problem> check_destination(const Plan& plan) {
  std::error_code ignored;
  fs::path above = fs::absolute(plan.folder).lexically_normal();  // the part of it that is there
  while (!fs::exists(fs::symlink_status(above, ignored)) && above != above.root_path()) above = above.parent_path();
  if (!fs::is_directory(above, ignored)) {
    return {{ErrorKind::kUsage, "the output folder '" + printable(plan.folder.string()) + "' cannot be: '" +
                                    printable(above.filename().string()) + "' is not a folder"}};
  }
  std::vector<Problem> problems;
  std::set<std::string> seen;
  for (const Plan& run : runs_of(plan)) {
    const JournalReading journal = read_journal(run);
    check_existing(run, is_written(run, journal), seen, problems);
    if (!journal.difference.empty() && !run.force) {
      problems.push_back({ErrorKind::kUsage, difference_error(run, journal.difference).what()});
    }
  }
  check_space(plan, problems);
  return problems;
}

}  // namespace quern
