#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/base/file.h"
#include "formats/tensor.h"

namespace quern::safetensors {

// Parses `8-byte length + JSON header` and checks every rule of the container: header within limits and file, no duplicate keys,
// known dtypes, shape x dtype = byte range, ranges that tile the data buffer without holes or overlap, file size = 8 + N + last end.
// `head` starts at byte 0 of the file and holds at least the header; file_size_bytes is the size of the whole file.
// Returned offsets count from the start of the file. Source: huggingface/safetensors safetensors/src/tensor.rs.
std::vector<TensorInfo> parse_header(std::span<const std::byte> head, uint64_t file_size_bytes);

// Bytes of `8 + header`, read from the first 8 bytes of a file; throws kFormat on a length over 100,000,000 or past the file.
uint64_t header_end(std::span<const std::byte> first8, uint64_t file_size_bytes);

// Opens a checkpoint folder: model.safetensors.index.json with its shards, or a lone model.safetensors. The set of names in
// the index equals the union over the shards. File names in the index stay inside the folder (no "..", no absolute path).
struct StoredTensor : TensorInfo {
  size_t file_index = 0;
};

class Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& folder);

  std::span<const InputFile> files() const noexcept { return files_; }
  std::span<const StoredTensor> tensors() const noexcept { return tensors_; }  // sorted by name
  const StoredTensor* find(std::string_view name) const noexcept;

  // Reads bytes [first, first + out.size()) of the tensor. Thread-safe.
  void read(const StoredTensor& tensor, uint64_t first_byte, std::span<std::byte> out) const;
  uint64_t bytes_read() const noexcept;  // tensor bytes handed out so far, headers excluded

 private:
  std::vector<InputFile> files_;
  std::vector<StoredTensor> tensors_;
  struct Counter;
  std::shared_ptr<Counter> bytes_read_;  // shared so that the class stays movable with an atomic inside
};

}  // namespace quern::safetensors
