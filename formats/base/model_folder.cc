#include "formats/base/model_folder.h"

#include <algorithm>

#include "formats/base/error.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

// Whether the text begins with `prefix` (in lower case) after blanks and a byte order mark, whatever its case.
bool begins_with(std::string_view text, std::string_view prefix) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  if (text.starts_with(kMark)) text.remove_prefix(kMark.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b; };
  return text.size() >= prefix.size() && std::ranges::equal(text.substr(0, prefix.size()), prefix, same);
}

}  // namespace

bool ModelFolder::has(std::string_view name) const {
  std::error_code failed;
  return fs::exists(fs::symlink_status(path_ / name, failed));
}

std::vector<std::string> ModelFolder::names(std::string_view folder) const {
  std::vector<std::string> names;
  std::error_code failed;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder.empty() ? path_ : path_ / folder, failed)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

InputFile ModelFolder::open(std::string_view name) const {
  InputFile file(path_ / name);
  refuse_stand_in(file);
  if (opened_) opened_->emplace(name);
  return file;
}

void ModelFolder::remember() { opened_ = std::make_shared<std::set<std::string>>(); }

std::vector<std::string> ModelFolder::opened() const {
  return opened_ ? std::vector<std::string>(opened_->begin(), opened_->end()) : std::vector<std::string>();
}

std::vector<std::byte> ModelFolder::read(std::string_view name, uint64_t max_bytes) const { return read_file(open(name), max_bytes); }

std::string ModelFolder::read_text(std::string_view name, uint64_t max_bytes) const { return read_text_file(open(name), max_bytes); }

std::string first_name(const ModelFolder& folder, std::string_view ending) {
  const std::vector<std::string> names = folder.names();
  const auto found = std::ranges::find_if(names, [=](const std::string& name) { return name.ends_with(ending); });
  return found == names.end() ? "" : *found;
}

void refuse_stand_in(const InputFile& file) {
  const auto refuse = [&](const char* what) { throw Error(ErrorKind::kFormat, what).file(file.path().string()); };
  if (file.size_bytes() == 0) refuse("is empty (incomplete download?)");
  constexpr uint64_t kHeadBytes = 64;
  std::string head(std::min(file.size_bytes(), kHeadBytes), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(head)));
  if (head.starts_with("version https://git-lfs.")) refuse("is a Git LFS pointer, not the file itself (run git lfs pull)");
  if (begins_with(head, "<!doctype html") || begins_with(head, "<html")) {
    refuse("is an HTML page, not the file itself (the answer of a server that wanted a login?)");
  }
}

void require_files(const ModelFolder& folder, std::span<const std::string> names) {
  constexpr size_t kMaxNamed = 3;
  size_t n_missing = 0;
  std::string list;
  for (const std::string& name : names) {
    if (folder.has(name)) continue;
    if (++n_missing <= kMaxNamed) list += (n_missing == 1 ? "" : ", ") + name;
  }
  if (n_missing == 0) return;
  if (n_missing > kMaxNamed) list += ", ...";
  throw Error(ErrorKind::kFormat, std::to_string(n_missing) + " of " + std::to_string(names.size()) + " shards are missing: " + list +
                                      " (incomplete download?)")
      .file(folder.path().string());
}

}  // namespace quern
