#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/base/file.h"

namespace quern {

// The files of a model: a folder of this machine, or a snapshot of the Hub's cache, which is a folder of links to blobs. Whoever reads a
// model's files asks for them here by name, so that this is the one place that knows where files are and what may stand in their place.
class ModelFolder {
 public:
  // A path is a folder by itself; that it exists is found out when a file is opened.
  ModelFolder(std::filesystem::path path) : path_(std::move(path)) {}  // NOLINT(google-explicit-constructor)

  const std::filesystem::path& path() const noexcept { return path_; }

  // Whether the folder lists the name. A link to nothing is listed, and opening it says so.
  bool has(std::string_view name) const;
  // Names of everything in the folder, or in a folder of it, sorted; empty if there is no such folder.
  std::vector<std::string> names(std::string_view folder = {}) const;

  // Throws what InputFile and refuse_stand_in throw.
  InputFile open(std::string_view name) const;

  // Whole small files; throws kFormat also when one is larger than max_bytes.
  std::vector<std::byte> read(std::string_view name, uint64_t max_bytes) const;
  std::string read_text(std::string_view name, uint64_t max_bytes) const;

  // From now on this folder and its copies remember what any of them opens. Not for use by several threads at once.
  void remember();
  // Names of the files that were opened since remember(), sorted.
  std::vector<std::string> opened() const;

 private:
  std::filesystem::path path_;
  std::shared_ptr<std::set<std::string>> opened_;  // shared, because the readers of a model keep copies of its folder
};

// The first name in the folder with this ending; of a split model that is its first shard. Empty when there is none.
std::string first_name(const ModelFolder& folder, std::string_view ending);

// Throws kFormat for what downloads leave in the place of a file of any kind: an empty file, a Git LFS pointer, an HTML page.
void refuse_stand_in(const InputFile& file);

// Throws one kFormat error that counts and names the files of `names` that the folder lacks.
void require_files(const ModelFolder& folder, std::span<const std::string> names);

}  // namespace quern
