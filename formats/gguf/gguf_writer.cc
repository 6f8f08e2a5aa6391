#include <algorithm>
#include <bit>
#include <cstdio>
#include <limits>
#include <set>

#include "formats/base/bytes.h"
#include "formats/base/checked.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_types.h"

// A header is made in memory as bytes and not written to a file: plans need its length before any data exists, and edits compare its length
// with that of the old one. Offsets of tensors follow from the list alone, as the running sum of padded sizes that every loader expects.
// What loaders would refuse (long or repeated names, empty tensors, types without a number) is refused here, so that it costs a second of
// planning and not a conversion. The value type of a key follows from the C++ type that it holds (gguf_types.h).

namespace quern::gguf {
namespace {

constexpr uint32_t kVersion = 3;

class HeaderBytes {
 public:
  template <typename T>
  requires std::is_arithmetic_v<T>
  void put(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    store_le(bytes_.data() + at, value);
  }

  void put(std::string_view text) {
    put(uint64_t{text.size()});
    put_raw(text);
  }

  void put_raw(std::string_view text) {
    const size_t at = bytes_.size();
    bytes_.resize(at + text.size());
    std::ranges::copy(std::as_bytes(std::span(text)), bytes_.begin() + static_cast<ptrdiff_t>(at));
  }

  template <typename T>
  void put(const std::vector<T>& values) {
    put(uint64_t{values.size()});
    for (const auto& value : values) put(static_cast<const T&>(value));
  }

  void put_value(const MetaValue& value) {
    const uint32_t type = value_type_of_index(value.index());
    if (value.index() >= kScalarKinds) put(kArrayType);
    put(type);
    std::visit([this](const auto& v) { put(v); }, value);
  }

  std::vector<std::byte> take_padded(uint64_t alignment) {
    bytes_.resize(align_up(bytes_.size(), alignment));
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
};

void check_alignment(const Metadata& metadata, uint64_t alignment) {
  QUERN_CHECK(std::has_single_bit(alignment));
  const MetaValue* value = metadata.find(kAlignmentKey);
  const auto* stated = value == nullptr ? nullptr : std::get_if<uint32_t>(value);
  const bool agrees = value == nullptr ? alignment == kDefaultAlignment : stated != nullptr && *stated == alignment;
  if (!agrees) {
    throw Error(ErrorKind::kUnsupported,
                "general.alignment must say " + std::to_string(alignment) + " as a u32, the alignment of this file");
  }
}

void check_tensor(const TensorInfo& tensor) {
  if (tensor.name.empty()) throw Error(ErrorKind::kUnsupported, "a tensor needs a name");
  if (tensor.name.size() > kMaxNameBytes) {
    throw Error(ErrorKind::kUnsupported,
                "the name has " + std::to_string(tensor.name.size()) + " bytes, GGUF allows " + std::to_string(kMaxNameBytes));
  }
  if (traits(tensor.dtype).gguf_id < 0) throw Error(ErrorKind::kUnsupported, "GGUF has no type " + std::string(name_of(tensor.dtype)));
  if (tensor.shape.n_elements() == 0) {
    throw Error(ErrorKind::kUnsupported, "shape " + tensor.shape.to_string() + " is empty, GGUF cannot hold that");
  }
}

void put_tensor(HeaderBytes& out, std::string_view name, const Shape& shape, int32_t type_id, uint64_t offset) {
  out.put(name);
  out.put(static_cast<uint32_t>(shape.rank()));
  for (int i = shape.rank(); i-- > 0;) out.put(shape[i]);  // innermost first
  out.put(type_id);
  out.put(offset);
}

// Everything before the descriptions of tensors.
void put_keys(HeaderBytes& out, const Metadata& metadata, size_t n_tensors) {
  out.put_raw(kMagic);
  out.put(kVersion);
  out.put(static_cast<int64_t>(n_tensors));
  out.put(static_cast<int64_t>(metadata.entries().size()));
  for (const auto& [key, value] : metadata.entries()) {
    if (key.empty() || key.size() > kMaxKeyBytes) {
      throw Error(ErrorKind::kUnsupported,
                  "a metadata key of " + std::to_string(key.size()) + " bytes, GGUF allows 1 to " + std::to_string(kMaxKeyBytes));
    }
    out.put(std::string_view(key));
    out.put_value(value);
  }
}

}  // namespace

Layout layout(std::span<const TensorInfo> tensors, uint64_t alignment) {
  QUERN_CHECK(std::has_single_bit(alignment));
  Layout result;
  result.offsets.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) {
    result.offsets.push_back(result.blob_bytes);
    const uint64_t end = checked_add(result.blob_bytes, tensor_size_bytes(tensor.dtype, tensor.shape), "size of the data");
    result.blob_bytes = checked_add(end, alignment - 1, "size of the data") / alignment * alignment;
  }
  return result;
}

std::vector<std::byte> serialize_header(const Metadata& metadata, std::span<const TensorInfo> tensors, uint64_t alignment) {
  check_alignment(metadata, alignment);
  HeaderBytes out;
  put_keys(out, metadata, tensors.size());
  const Layout places = layout(tensors, alignment);
  std::set<std::string_view> names;
  for (size_t i = 0; i < tensors.size(); ++i) {
    try {
      check_tensor(tensors[i]);
      if (!names.insert(tensors[i].name).second) throw Error(ErrorKind::kUnsupported, "occurs twice");
    } catch (Error& e) {
      e.tensor(tensors[i].name);
      throw;
    }
    put_tensor(out, tensors[i].name, tensors[i].shape, traits(tensors[i].dtype).gguf_id, places.offsets[i]);
  }
  return out.take_padded(alignment);
}

std::vector<std::byte> serialize_header(const Header& header, const Metadata& metadata) {
  check_alignment(metadata, header.alignment);
  HeaderBytes out;
  put_keys(out, metadata, header.tensors.size() + header.foreign.size());
  auto foreign = header.foreign.begin();
  const auto put_foreign_before = [&](uint64_t file_offset) {
    for (; foreign != header.foreign.end() && foreign->file_offset < file_offset; ++foreign)
      put_tensor(out, foreign->name, foreign->shape, foreign->type_id, foreign->file_offset - header.data_offset);
  };
  for (const TensorInfo& tensor : header.tensors) {
    put_foreign_before(tensor.file_offset);
    put_tensor(out, tensor.name, tensor.shape, traits(tensor.dtype).gguf_id, tensor.file_offset - header.data_offset);
  }
  put_foreign_before(std::numeric_limits<uint64_t>::max());
  return out.take_padded(header.alignment);
}

std::vector<std::byte> serialize_value(const MetaValue& value) {
  HeaderBytes out;
  out.put_value(value);
  return out.take_padded(1);
}

std::string split_name(std::string_view prefix, int64_t index_from_0, int64_t count) {
  char suffix[64];
  std::snprintf(suffix, sizeof suffix, "-%05lld-of-%05lld.gguf", static_cast<long long>(index_from_0 + 1), static_cast<long long>(count));
  return std::string(prefix) + suffix;
}

}  // namespace quern::gguf
