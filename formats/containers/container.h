#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/base/file.h"
#include "formats/gguf/metadata.h"
#include "formats/types/tensor.h"

namespace quern {

// What a build is stored as. Conversion and the checks of finished files see this contract alone: which files there are and what they are
// named, what stands in front of the data, and where the bytes of a tensor go. A container is one folder beside this file and one row in
// registry.cc (docs/adding-a-container.md).

// Whose names the tensors have, and with the names whose row order and stacking.
enum class Dialect { kGguf };

// Encoders make a tensor as blocks, one after the other, and decoders read it so. A container may want the fields of the blocks in arrays
// of their own, for example all codes, then all scales, then all biases. A plane is one of these arrays: it has the bytes
// [block_offset, block_offset + block_bytes) of every block, in the order of the blocks. The planes of a type share out its block without
// rest. They follow one another in the file; whoever writes passes the first one through and keeps the others until the end of the
// tensor, so the largest is the first.
struct Plane {
  uint32_t block_offset = 0;
  uint32_t block_bytes = 0;
};

// What one file of a build holds. The tensors have the names, types and shapes that the model has; their offsets are not set.
struct FileContents {
  const Metadata& metadata;  // of the model and of how the build was made
  size_t number = 0;
  size_t n_files = 1;
  size_t n_tensors = 0;  // of the whole build
  std::vector<TensorInfo> tensors;
};

// A small file that belongs to a build beside those with tensors: configuration, index, tokenizer.
struct SideFile {
  std::string name;
  std::string bytes;
};

// The contents of a build, as side files describe it.
struct NamedFile {
  std::string name;
  std::vector<TensorInfo> tensors;
};

// The metadata keys that a header holds, each with the SHA-256 of its value as stored.
using ValueSums = std::vector<std::pair<std::string, std::string>>;

// What a file says about itself.
struct FileHeader {
  struct Place {
    int64_t number = -1;
    int64_t n_files = -1;
  };
  std::vector<TensorInfo> arrays;  // in the order of the data; offsets from the start of the file
  ValueSums values;
  std::optional<Place> place;  // among the files of its build; empty when files of this container do not say, -1 when this one does not
};

struct OpenedFile {
  InputFile file;
  FileHeader header;
};

// Values without state, one for the whole program.
class Container {
 public:
  virtual ~Container() = default;

  virtual std::string_view name() const noexcept = 0;   // in plans and records: "gguf"
  virtual std::string_view title() const noexcept = 0;  // in messages: "GGUF"
  virtual Dialect dialect() const noexcept = 0;

  // The name of a file, numbered from 0. stem: what the build is named after.
  virtual std::string file_name(std::string_view stem, size_t number, size_t n_files) const = 0;
  // ".gguf": how a build of a single file is named by its user.
  virtual std::string_view extension() const noexcept = 0;
  // Whether a name is that of a file with tensors, and of one that is the first or only file of its build.
  virtual bool is_file_name(std::string_view name) const = 0;
  virtual bool is_first_file_name(std::string_view name) const = 0;
  virtual size_t max_files() const noexcept = 0;
  // Whether the files of every build need a folder to themselves, because their names do not tell builds apart.
  virtual bool has_own_folder() const noexcept { return false; }

  // Why no tensor can have this name: "is longer than 63 bytes, GGUF's limit". Empty when one can.
  virtual std::string why_not_name(std::string_view tensor) const = 0;
  // The planes of a type in the order of the file; empty for a type that cannot be stored.
  virtual std::vector<Plane> planes(DType type) const = 0;
  // The same planes as arrays with the names, types and shapes that a header gives them, and their sizes; offsets are not set. The type of
  // an array also says how it is looked through for values that are not finite.
  virtual std::vector<TensorInfo> arrays(const TensorInfo& tensor) const = 0;
  // Every plane begins at a multiple of this many bytes after the header, next to the one before; zeros fill the gap, and the file ends
  // at such a multiple too.
  virtual uint64_t alignment() const noexcept = 0;

  // Adds the keys with which files state their mixture of types. mix_number: the number of the mix in llama_ftype.
  virtual void set_type_keys(int32_t mix_number, Metadata& metadata) const = 0;
  // Whether a key of a model describes the file that the model came in, and not the model.
  virtual bool is_of_the_file(std::string_view key) const = 0;

  // Everything before the data of a file. Throws kUnsupported, naming tensor or key, for what cannot be stored.
  virtual std::vector<std::byte> header(const FileContents& file) const = 0;
  // FileHeader::values of that header.
  virtual ValueSums values(const FileContents& file) const = 0;
  // The side files of a build. model: what was opened; a file that is to be copied is read now, so that a plan has all it needs.
  virtual std::vector<SideFile> side_files(const Metadata& /*metadata*/, std::span<const NamedFile> /*files*/,
                                           const std::filesystem::path& /*model*/) const {
    return {};
  }

  // Reads headers only. Throws kFormat and kUnsupported for what breaks the container's rules, with the path.
  virtual FileHeader read_header(const InputFile& file) const = 0;
  // All files of the build whose first one this is.
  virtual std::vector<OpenedFile> open(const std::filesystem::path& first) const = 0;

  bool holds(DType type) const { return !planes(type).empty(); }
};

// Every container, the one that is made unless another is asked for first.
std::span<const Container* const> all_containers();
const Container& default_container();
const Container* find_container(std::string_view name);  // nullptr when there is none

// Sizes of the planes of a tensor that `container` holds.
std::vector<uint64_t> plane_sizes(const Container& container, DType type, const Shape& shape);

// Hands on what a plane has of some whole blocks of `type`, in pieces. A plane that is the whole block is passed on as it is, without a
// copy; others go through `buffer`, which is made as large as a piece needs, at most kRunBytes.
inline constexpr size_t kRunBytes = size_t{1} << 20;
void copy_field(const Plane& plane, size_t block_bytes, std::span<const std::byte> blocks, std::span<std::byte> out);

template <typename Visit>
void for_each_run(const Plane& plane, DType type, std::span<const std::byte> blocks, std::vector<std::byte>& buffer, Visit&& visit) {
  const size_t block_bytes = static_cast<size_t>(traits(type).block_bytes);
  if (plane.block_bytes == block_bytes) return visit(blocks);
  const size_t most = kRunBytes / plane.block_bytes * block_bytes;
  while (!blocks.empty()) {
    const std::span<const std::byte> some = blocks.first(blocks.size() < most ? blocks.size() : most);
    buffer.resize(some.size() / block_bytes * plane.block_bytes);
    copy_field(plane, block_bytes, some, buffer);
    visit(std::span<const std::byte>(buffer));
    blocks = blocks.subspan(some.size());
  }
}

}  // namespace quern
