#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "formats/base/file.h"
#include "formats/metadata.h"
#include "formats/tensor.h"

namespace quern::gguf {

inline constexpr uint64_t kDefaultAlignment = 32;

// Everything before the tensor data of one file.
struct Header {
  uint32_t version = 3;
  uint64_t alignment = kDefaultAlignment;
  uint64_t data_offset = 0;  // start of the data blob, from the start of the file
  Metadata metadata;
  std::vector<TensorInfo> tensors;  // in file order; file_offset from the start of the file, shapes outermost first
};

// Parses and checks all rules that ggml's reader enforces and the ones it forgets (see docs/formats/gguf.md). `head` starts at
// byte 0 and holds at least the header (the whole file is fine); file_size_bytes bounds every size in it.
Header parse_header(std::span<const std::byte> head, uint64_t file_size_bytes);
Header read_header(const InputFile& file);

// Serialises header and padding up to the data blob. Tensor file_offsets are ignored: offsets are the running sum of padded
// sizes in list order, as every loader demands. layout() gives those offsets relative to the data blob and the blob size.
std::vector<std::byte> serialize_header(const Metadata& metadata, std::span<const TensorInfo> tensors, uint64_t alignment = kDefaultAlignment);
struct Layout {
  std::vector<uint64_t> offsets;
  uint64_t blob_bytes = 0;
};
Layout layout(std::span<const TensorInfo> tensors, uint64_t alignment = kDefaultAlignment);

// "PREFIX-00001-of-00003.gguf"
std::string split_name(std::string_view prefix, int64_t index_from_0, int64_t count);

// A GGUF file or, given the first shard, all shards of a split set; checks split.no, split.count, split.tensors.count, names
// and that no tensor name occurs twice.
struct StoredTensor : TensorInfo {
  size_t file_index = 0;
};

class File {
 public:
  explicit File(const std::filesystem::path& first_shard);

  const Metadata& metadata() const noexcept { return metadata_; }  // of shard 0, split.* keys included
  std::span<const InputFile> files() const noexcept { return files_; }
  std::span<const Header> headers() const noexcept { return headers_; }
  std::span<const StoredTensor> tensors() const noexcept { return tensors_; }  // shard by shard, file order
  const StoredTensor* find(std::string_view name) const noexcept;
  void read(const StoredTensor& tensor, uint64_t first_byte, std::span<std::byte> out) const;

 private:
  std::vector<InputFile> files_;
  std::vector<Header> headers_;
  std::vector<StoredTensor> tensors_;
  Metadata metadata_;
};

}  // namespace quern::gguf
