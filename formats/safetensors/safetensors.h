#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/base/model_folder.h"
#include "formats/safetensors/safetensors_index.h"
#include "formats/types/tensor.h"

namespace quern::safetensors {

// The container's own limit.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

// What one file says before its data.
struct Header {
  std::vector<TensorInfo> tensors;                            // in data order; offsets count from the start of the file
  std::vector<std::pair<std::string, std::string>> metadata;  // the __metadata__ map, e.g. {"format", "pt"}
};

// Parses `8-byte length + JSON header` and checks every rule of the container: header within limits and file, no duplicate keys,
// known dtypes, shape x dtype = byte range, ranges that tile the data buffer without holes or overlap, file size = 8 + N + last end.
// `head` starts at byte 0 of the file and holds at least the header; file_size_bytes is the size of the whole file.
// Throws kFormat, or kUnsupported for a dtype that quern does not read. Source: huggingface/safetensors safetensors/src/tensor.rs.
Header parse_header(std::span<const std::byte> head, uint64_t file_size_bytes);
// Reads the header of a file under the same rules. Errors carry the path.
Header read_header(const InputFile& file);

// Bytes of `8 + header`, from the first 8 bytes of a file; throws kFormat on a length over kMaxHeaderBytes or past the file.
uint64_t header_end(std::span<const std::byte> first8, uint64_t file_size_bytes);

struct StoredTensor : TensorInfo {
  size_t file_index = 0;
};

// The weights of a checkpoint folder, which weight_files.h chooses. The set of names in the index equals the union over the shards, each
// in the file that the index says; where the numbers of the shards show that they are complete, a note tells of an index that differs.
// Shards may be symbolic links (the Hub's cache is made of them) to regular files. All files stay open.
class Checkpoint {
 public:
  explicit Checkpoint(const ModelFolder& folder);

  std::span<const InputFile> files() const noexcept { return files_; }
  std::span<const StoredTensor> tensors() const noexcept { return tensors_; }  // sorted by name
  const StoredTensor* find(std::string_view name) const noexcept;
  // The __metadata__ of files()[0]; writers give every shard the same.
  std::span<const std::pair<std::string, std::string>> metadata() const noexcept { return metadata_; }

  // Files that were left aside and what was wrong with the index, one line each.
  std::span<const std::string> notes() const noexcept { return notes_; }

  // Gives every tensor another name; no two may get the same. find() and errors go by the new ones from then on.
  void rename(const std::function<std::string(std::string_view)>& new_name);

  // A hint that these bytes of the tensor will be read next.
  void read_ahead(const StoredTensor& tensor, uint64_t first_byte, uint64_t size_bytes) const noexcept;
  // Reads bytes [first_byte, first_byte + out.size()) of the tensor, which is one of tensors(). Thread-safe.
  void read(const StoredTensor& tensor, uint64_t first_byte, std::span<std::byte> out) const;
  uint64_t bytes_read() const noexcept;  // tensor bytes handed out so far, headers excluded

 private:
  void open_file(const ModelFolder& folder, std::string_view name);
  void sort_tensors();

  std::vector<InputFile> files_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<std::string> notes_;
  struct Counter;
  std::shared_ptr<Counter> bytes_read_;  // shared so that the class stays movable with an atomic inside
};

}  // namespace quern::safetensors
