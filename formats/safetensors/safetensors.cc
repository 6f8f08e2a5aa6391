#include "formats/safetensors/safetensors.h"

#include <algorithm>
#include <atomic>
#include <map>

#include "formats/base/error.h"
#include "formats/base/json_events.h"
#include "formats/types/read_tensor.h"

// A checkpoint is all shards that its index names, or the single file, with every header read before anything else is believed. Names,
// types and places become one sorted list whatever shard they came from, and a tensor in a shard that the index puts elsewhere is an
// error: two files that claim the same weights cannot both be right.

namespace quern::safetensors {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";
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

// What a folder without safetensors has instead, for the message.
std::string describe_folder(const ModelFolder& folder) {
  std::string others;
  for (const std::string& name : folder.names()) {
    if (name.ends_with(".safetensors")) return "; '" + name + "' is not listed by an index";
    if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth"))
      others = "; '" + name + "': pickled weights are not supported";
  }
  const std::string gguf = first_name(folder, ".gguf");
  return gguf.empty() ? others : "; give the GGUF file itself, '" + gguf + "'";
}

}  // namespace

Index parse_index(std::span<const std::byte> json) {
  IndexHandler handler;
  parse_json(json, kIndexDepth, handler);
  return handler.take();
}

struct Checkpoint::Counter {
  std::atomic<uint64_t> bytes{0};
};

Checkpoint::Checkpoint(const ModelFolder& folder) : bytes_read_(std::make_shared<Counter>()) {
  if (folder.has(kIndexName)) {
    const fs::path index_path = folder.path() / kIndexName;
    const std::vector<std::byte> json = folder.read(kIndexName, kMaxIndexBytes);
    Index index;
    try {
      index = parse_index(json);
    } catch (Error& e) {
      e.file(index_path.string());
      throw;
    }
    require_files(folder, index.files);
    files_.reserve(index.files.size());
    for (const std::string& file : index.files) open_file(folder, file);
    sort_tensors();
    check_against(index, index_path);
  } else if (folder.has(kSingleName)) {
    open_file(folder, kSingleName);
    sort_tensors();
  } else {
    const char* reason = fs::is_directory(folder.path()) ? "the folder has neither model.safetensors.index.json nor model.safetensors"
                                                         : "is not a checkpoint folder";
    throw Error(ErrorKind::kFormat, reason + describe_folder(folder)).file(folder.path().string());
  }
}

void Checkpoint::open_file(const ModelFolder& folder, std::string_view name) {
  Header header = read_header(files_.emplace_back(folder.open(name)));
  if (files_.size() == 1) metadata_ = std::move(header.metadata);
  for (TensorInfo& tensor : header.tensors) tensors_.push_back({std::move(tensor), files_.size() - 1});
}

void Checkpoint::sort_tensors() {
  std::ranges::sort(tensors_, [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  const auto twice = std::ranges::adjacent_find(tensors_, {}, &StoredTensor::name);
  if (twice == tensors_.end()) return;
  throw Error(ErrorKind::kFormat, "is stored twice, here and in '" + files_[(twice + 1)->file_index].path().filename().string() + "'")
      .file(files_[twice->file_index].path().string())
      .tensor(twice->name);
}

// Walks both sorted lists; the first difference is the error.
void Checkpoint::check_against(const Index& index, const fs::path& index_path) const {
  auto entry = index.entries.begin();
  auto tensor = tensors_.begin();
  for (; entry != index.entries.end() || tensor != tensors_.end(); ++entry, ++tensor) {
    if (tensor == tensors_.end() || (entry != index.entries.end() && entry->tensor < tensor->name)) {
      throw Error(ErrorKind::kFormat, "the index places it in '" + index.files[entry->file] + "', which does not have it")
          .file(index_path.string())
          .tensor(entry->tensor);
    }
    if (entry == index.entries.end() || tensor->name < entry->tensor) {
      throw Error(ErrorKind::kFormat, "is stored here, but the index does not list it")
          .file(files_[tensor->file_index].path().string())
          .tensor(tensor->name);
    }
    if (entry->file != tensor->file_index) {
      throw Error(ErrorKind::kFormat, "is stored here, but the index places it in '" + index.files[entry->file] + "'")
          .file(files_[tensor->file_index].path().string())
          .tensor(tensor->name);
    }
  }
}

const StoredTensor* Checkpoint::find(std::string_view name) const noexcept {
  const auto it = std::ranges::lower_bound(tensors_, name, {}, &StoredTensor::name);
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

void Checkpoint::read_ahead(const StoredTensor& tensor, uint64_t first_byte, uint64_t size_bytes) const noexcept {
  files_[tensor.file_index].read_ahead(tensor.file_offset + first_byte, size_bytes);
}

void Checkpoint::read(const StoredTensor& tensor, uint64_t first_byte, std::span<std::byte> out) const {
  read_tensor(files_[tensor.file_index], tensor, first_byte, out);
  bytes_read_->bytes.fetch_add(out.size(), std::memory_order_relaxed);
}

uint64_t Checkpoint::bytes_read() const noexcept { return bytes_read_->bytes.load(std::memory_order_relaxed); }

}  // namespace quern::safetensors
