#include "formats/safetensors/safetensors.h"

#include <algorithm>
#include <atomic>

#include "formats/base/error.h"
#include "formats/safetensors/weight_files.h"
#include "formats/types/read_tensor.h"

// A checkpoint is a set of files (weight_files.h), with every header read before anything else is believed. Names, types and places become
// one sorted list whatever shard they came from, and a tensor that two files claim is an error. So is an index that disagrees with the
// headers, unless the numbers of the shards say by themselves that all are here: then the index is what is wrong.

namespace quern::safetensors {
namespace {

namespace fs = std::filesystem;

// Where an index and the headers disagree.
struct Difference {
  fs::path file;
  std::string tensor;
  std::string message;
};

// Walks both sorted lists; the first difference is the answer.
std::optional<Difference> find_difference(const Checkpoint& checkpoint, const Index& index, const fs::path& index_path) {
  auto entry = index.entries.begin();
  auto tensor = checkpoint.tensors().begin();
  for (; entry != index.entries.end() || tensor != checkpoint.tensors().end(); ++entry, ++tensor) {
    if (tensor == checkpoint.tensors().end() || (entry != index.entries.end() && entry->tensor < tensor->name)) {
      return {{index_path, entry->tensor, "the index places it in '" + index.files[entry->file] + "', which does not have it"}};
    }
    const fs::path& file = checkpoint.files()[tensor->file_index].path();
    if (entry == index.entries.end() || tensor->name < entry->tensor) {
      return {{file, tensor->name, "is stored here, but the index does not list it"}};
    }
    if (entry->file != tensor->file_index) {
      return {{file, tensor->name, "is stored here, but the index places it in '" + index.files[entry->file] + "'"}};
    }
  }
  return std::nullopt;
}

}  // namespace

struct Checkpoint::Counter {
  std::atomic<uint64_t> bytes{0};
};

Checkpoint::Checkpoint(const ModelFolder& folder) : bytes_read_(std::make_shared<Counter>()) {
  WeightFiles weights = find_weights(folder);
  notes_ = std::move(weights.notes);
  files_.reserve(weights.names.size());
  for (const std::string& name : weights.names) open_file(folder, name);
  sort_tensors();
  if (!weights.index) return;
  const std::optional<Difference> difference = find_difference(*this, *weights.index, folder.path() / kIndexName);
  if (!difference) return;
  const auto& [file, tensor, message] = *difference;
  if (!weights.complete_by_number) throw std::move(Error(ErrorKind::kFormat, message).file(file.string()).tensor(tensor));
  notes_.push_back(std::string(kIndexName) + " is stale and was not believed, as the shards are complete by their numbers: " +
                   file.filename().string() + ": tensor '" + printable(tensor) + "': " + message);
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

void Checkpoint::rename(const std::function<std::string(std::string_view)>& new_name) {
  for (StoredTensor& tensor : tensors_) tensor.name = new_name(tensor.name);
  sort_tensors();
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
