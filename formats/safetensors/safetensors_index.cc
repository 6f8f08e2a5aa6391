#include "formats/safetensors/safetensors_index.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "formats/base/error.h"
#include "formats/base/json_events.h"

namespace quern::safetensors {
namespace {

namespace fs = std::filesystem;

constexpr int kIndexDepth = 16;

// {"metadata": {...}, "weight_map": {"TENSOR": "FILE", ...}}; everything but weight_map is skipped.
class IndexHandler final : public JsonHandler {
 public:
  Index take() {
    if (!seen_) throw Error(ErrorKind::kFormat, "the index has no weight_map");
    if (index_.entries.empty()) throw Error(ErrorKind::kFormat, "weight_map is empty");
    sort_files();
    std::ranges::sort(index_.entries, {}, &Index::Entry::tensor);
    const auto twice = std::ranges::adjacent_find(index_.entries, {}, &Index::Entry::tensor);
    if (twice != index_.entries.end()) throw Error(ErrorKind::kFormat, "weight_map names it twice").tensor(twice->tensor);
    return std::move(index_);
  }

  void begin_object() override {
    ++depth_;
    if (depth_ == 2 && at_map_) in_map_ = true;
    if (depth_ > 2 && in_map_) refuse("an object");
  }

  void end_object() override {
    if (depth_ == 2) in_map_ = false;
    --depth_;
  }

  void begin_array() override {
    if (depth_ == 0 || in_map_ || (depth_ == 1 && at_map_)) refuse("an array");
    ++depth_;
  }

  void end_array() override { --depth_; }

  void key(std::string& name) override {
    if (depth_ == 1) {
      at_map_ = name == "weight_map";
      if (at_map_ && std::exchange(seen_, true)) throw Error(ErrorKind::kFormat, "the index has two weight_maps");
    } else if (in_map_) {
      index_.entries.push_back({std::move(name), 0});
    }
  }

  void string(std::string& value) override {
    if (!in_map_) return skip("a string");
    index_.entries.back().file = number_of(value);
  }

  void natural(uint64_t) override { skip("a number"); }
  void other(const char* what) override { skip(what); }

 private:
  void skip(const char* what) const {
    if (depth_ == 0 || in_map_ || (depth_ == 1 && at_map_)) refuse(what);
  }

  size_t number_of(const std::string& file) {
    const auto [it, is_new] = numbers_.try_emplace(file, numbers_.size());
    if (is_new) check_name(file);
    return it->second;
  }

  // Only files inside the folder, whatever the index says.
  static void check_name(const std::string& file) {
    const fs::path path(file);
    const bool climbs = std::ranges::any_of(path, [](const fs::path& part) { return part == ".." || part == "."; });
    if (file.empty() || path.is_absolute() || climbs || !path.has_filename() || file.find('\0') != std::string::npos) {
      throw Error(ErrorKind::kFormat, "weight_map names the file '" + file + "', which is not a plain name inside the folder");
    }
  }

  void sort_files() {
    std::vector<size_t> position(numbers_.size());
    for (const auto& [file, number] : numbers_) {
      position[number] = index_.files.size();
      index_.files.push_back(file);
    }
    for (Index::Entry& entry : index_.entries) entry.file = position[entry.file];
  }

  Index index_;
  std::map<std::string, size_t> numbers_;  // file name -> order of appearance
  int depth_ = 0;
  bool at_map_ = false;  // the last key of the outer object was weight_map
  bool in_map_ = false;
  bool seen_ = false;
};

}  // namespace

Index parse_index(std::span<const std::byte> json) {
  IndexHandler handler;
  parse_json(json, kIndexDepth, handler);
  return handler.take();
}

}  // namespace quern::safetensors
