#include <algorithm>
#include <numeric>

#include "formats/base/error.h"
#include "formats/base/model_folder.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/shards.h"
#include "formats/types/read_tensor.h"

namespace quern::gguf {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSplitNo = "split.no";
constexpr const char* kSplitCount = "split.count";
constexpr const char* kSplitTensors = "split.tensors.count";

void check_split_value(const InputFile& file, const Metadata& metadata, const char* key, int64_t expected) {
  const int64_t value = metadata.find_int(key).value_or(-1);
  if (value == expected) return;
  const std::string found = value == -1 ? "is missing" : "is " + std::to_string(value);
  throw Error(ErrorKind::kFormat, std::string(key) + " " + found + ", " + std::to_string(expected) + " expected (a shard of another file?)")
      .file(file.path().string());
}

}  // namespace

File::File(const fs::path& shard, ForeignTypes foreign) {
  const auto open_first = [&](const fs::path& path) {
    files_.emplace_back(path);
    headers_.push_back(read_header(files_.front(), foreign));
  };
  open_first(shard);
  const fs::path first = first_shard(shard, metadata());
  if (first != shard) {
    files_.clear();
    headers_.clear();
    open_first(first);
  }
  try {
    const int64_t count = metadata().find_int(kSplitCount).value_or(0);
    if (count > 1) open_shards(first, count, foreign);
    index_tensors();
  } catch (Error& e) {
    e.file(first.string());
    throw;
  }
}

void File::open_shards(const fs::path& first_shard, int64_t count, ForeignTypes foreign) {
  const std::vector<std::string> names = shard_names(first_shard, metadata());
  const int64_t n_tensors = metadata().get_int(kSplitTensors);
  require_files(first_shard.parent_path(), names);
  size_t n_found = headers_.front().tensors.size() + headers_.front().foreign.size();
  for (int64_t i = 1; i < count; ++i) {
    const InputFile& file = files_.emplace_back(first_shard.parent_path() / names[static_cast<size_t>(i)]);
    const Header& header = headers_.emplace_back(read_header(file, foreign));
    check_split_value(file, header.metadata, kSplitNo, i);
    check_split_value(file, header.metadata, kSplitCount, count);
    check_split_value(file, header.metadata, kSplitTensors, n_tensors);
    n_found += header.tensors.size() + header.foreign.size();
  }
  if (std::cmp_not_equal(n_found, n_tensors)) {
    throw Error(ErrorKind::kFormat, "split.tensors.count is " + std::to_string(n_tensors) + ", the shards have " + std::to_string(n_found));
  }
}

void File::index_tensors() {
  for (size_t i = 0; i < headers_.size(); ++i) {
    for (const TensorInfo& tensor : headers_[i].tensors) tensors_.push_back({tensor, i});
  }
  const auto name_of_position = [this](size_t position) -> const std::string& { return tensors_[position].name; };
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), size_t{0});
  std::ranges::sort(by_name_, {}, name_of_position);
  const auto twice = std::ranges::adjacent_find(by_name_, {}, name_of_position);
  if (twice != by_name_.end()) {
    throw Error(ErrorKind::kFormat, "is in two shards")
        .tensor(tensors_[*twice].name)
        .file(files_[tensors_[*twice].file_index].path().string());
  }
}

const StoredTensor* File::find(std::string_view name) const noexcept {
  const auto name_of_position = [this](size_t position) -> std::string_view { return tensors_[position].name; };
  const auto it = std::ranges::lower_bound(by_name_, name, {}, name_of_position);
  return it != by_name_.end() && tensors_[*it].name == name ? &tensors_[*it] : nullptr;
}

void File::read(const StoredTensor& tensor, uint64_t first_byte, std::span<std::byte> out) const {
  read_tensor(files_[tensor.file_index], tensor, first_byte, out);
}

}  // namespace quern::gguf
