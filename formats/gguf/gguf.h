#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/file.h"
#include "formats/gguf/metadata.h"
#include "formats/types/tensor.h"

namespace quern::gguf {

inline constexpr uint64_t kDefaultAlignment = 32;

// Limits of this reader and writer (docs/limits.md). The first is ggml's; the others keep a hostile header from costing more
// memory than a large honest one.
inline constexpr uint64_t kMaxNameBytes = 63;
inline constexpr uint64_t kMaxKeyBytes = 65535;
inline constexpr int64_t kMaxKeys = 1 << 14;
inline constexpr int64_t kMaxTensors = 1 << 20;
inline constexpr uint64_t kMaxArrayStrings = 1 << 22;  // in all arrays of one file together
inline constexpr uint64_t kMaxHeaderBytes = uint64_t{1} << 28;

// A tensor of a type that we cannot read (formats/types/foreign_types.h).
struct ForeignTensor {
  std::string name;
  int32_t type_id = 0;
  Shape shape;
  uint64_t file_offset = 0;
  uint64_t size_bytes = 0;  // up to the next tensor or the end of the file, so there may be padding in it
};
// What a reader makes of them: an error, or entries of a list.
enum class ForeignTypes { kRefuse, kList };

// Everything before the tensor data of one file.
struct Header {
  uint32_t version = 3;
  uint64_t alignment = kDefaultAlignment;
  uint64_t data_offset = 0;  // start of the data blob, from the start of the file
  Metadata metadata;
  std::vector<TensorInfo> tensors;     // in file order; file_offset from the start of the file, shapes outermost first
  std::vector<ForeignTensor> foreign;  // the same of those that we cannot read; empty unless they were to be listed
};

// Parses and checks all rules that ggml's reader enforces and the ones it forgets (see docs/formats/gguf.md). `head` starts at
// byte 0 and holds at least the header (the whole file is fine); file_size_bytes is the size of the whole file.
// Throws kFormat; kUnsupported for other versions, big-endian files and unknown tensor types.
Header parse_header(std::span<const std::byte> head, uint64_t file_size_bytes);
// Reads the header of a file under the same rules, and no byte behind it is needed. Errors carry the path.
Header read_header(const InputFile& file, ForeignTypes foreign = ForeignTypes::kRefuse);

// Serialises header and padding up to the data blob. Tensor file_offsets are ignored: offsets are the running sum of padded
// sizes in list order, as every loader demands. An alignment other than 32 must be in metadata as general.alignment (u32).
// Throws kUnsupported, naming tensor or key, for what GGUF cannot hold: a name over 63 bytes, an empty tensor, a type without id.
std::vector<std::byte> serialize_header(const Metadata& metadata, std::span<const TensorInfo> tensors,
                                        uint64_t alignment = kDefaultAlignment);
// The header of a file that was read, foreign tensors included, with other metadata. Throws as above.
std::vector<std::byte> serialize_header(const Header& header, const Metadata& metadata);
// Value type and value of a key, as they stand in the header.
std::vector<std::byte> serialize_value(const MetaValue& value);
// The offsets of tensors relative to the data blob, and the size of the blob. Every tensor is followed by zeros up to `alignment`.
struct Layout {
  std::vector<uint64_t> offsets;
  uint64_t blob_bytes = 0;
};
Layout layout(std::span<const TensorInfo> tensors, uint64_t alignment = kDefaultAlignment);

// "PREFIX-00001-of-00003.gguf"
std::string split_name(std::string_view prefix, int64_t index_from_0, int64_t count);

struct StoredTensor : TensorInfo {
  size_t file_index = 0;
};

// A GGUF file or, given any shard, all shards of a split set; checks split.no, split.count, split.tensors.count, names
// and that no tensor name occurs twice. All files stay open.
class File {
 public:
  explicit File(const std::filesystem::path& first_shard, ForeignTypes foreign = ForeignTypes::kRefuse);

  const Metadata& metadata() const noexcept { return headers_.front().metadata; }  // of shard 0, split.* keys included
  std::span<const InputFile> files() const noexcept { return files_; }
  std::span<const Header> headers() const noexcept { return headers_; }
  std::span<const StoredTensor> tensors() const noexcept { return tensors_; }  // shard by shard, file order
  const StoredTensor* find(std::string_view name) const noexcept;

  // Reads bytes [first_byte, first_byte + out.size()) of the tensor, which is one of tensors(). Thread-safe.
  void read(const StoredTensor& tensor, uint64_t first_byte, std::span<std::byte> out) const;

 private:
  void open_shards(const std::filesystem::path& first_shard, int64_t count, ForeignTypes foreign);
  void index_tensors();

  std::vector<InputFile> files_;
  std::vector<Header> headers_;
  std::vector<StoredTensor> tensors_;
  std::vector<size_t> by_name_;  // positions in tensors_, sorted by name
};

}  // namespace quern::gguf
