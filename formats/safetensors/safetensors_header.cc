#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <optional>

#include "formats/base/bytes.h"
#include "formats/base/checked.h"
#include "formats/base/json_events.h"
#include "formats/safetensors/safetensors.h"

// The header is read as a stream of JSON events into the list of tensors, without a tree: shards with tens of thousands of tensors open
// in milliseconds, and nothing is allocated that the file does not back. Rules of one tensor are checked as it ends, rules of all of
// them (names, ranges without holes or overlap, the size of the file) once the list is sorted by offset.

namespace quern::safetensors {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr int kHeaderDepth = 3;  // file, tensor, shape

struct NamedDType {
  std::string_view name;
  std::optional<DType> dtype;  // empty: the container knows it, we have no use for it
};

constexpr std::array kDTypes = {
    NamedDType{"BOOL", DType::BOOL},
    NamedDType{"U8", DType::U8},
    NamedDType{"I8", DType::I8},
    NamedDType{"F8_E4M3", DType::F8_E4M3},
    NamedDType{"F8_E5M2", DType::F8_E5M2},
    NamedDType{"F8_E8M0", DType::F8_E8M0},
    NamedDType{"U16", DType::U16},
    NamedDType{"I16", DType::I16},
    NamedDType{"F16", DType::F16},
    NamedDType{"BF16", DType::BF16},
    NamedDType{"U32", DType::U32},
    NamedDType{"I32", DType::I32},
    NamedDType{"F32", DType::F32},
    NamedDType{"U64", DType::U64},
    NamedDType{"I64", DType::I64},
    NamedDType{"F64", DType::F64},
    NamedDType{"F4", std::nullopt},
    NamedDType{"F6_E2M3", std::nullopt},
    NamedDType{"F6_E3M2", std::nullopt},
    NamedDType{"F8_E4M3FNUZ", std::nullopt},
    NamedDType{"F8_E5M2FNUZ", std::nullopt},
    NamedDType{"C64", std::nullopt},
};

DType dtype_of(const std::string& name) {
  const auto it = std::ranges::find(kDTypes, name, &NamedDType::name);
  if (it == kDTypes.end()) throw Error(ErrorKind::kFormat, "dtype '" + name + "' is none of the safetensors format");
  if (!it->dtype) throw Error(ErrorKind::kUnsupported, "dtype " + name + " is not supported");
  return *it->dtype;
}

// {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {"format": "pt"}}
class HeaderHandler final : public JsonHandler {
 public:
  explicit HeaderHandler(uint64_t data_begin) : data_begin_(data_begin) {}

  Header take() { return std::move(header_); }
  const std::string& tensor_name() const { return tensor_.name; }

  void begin_object() override {
    switch (state_) {
      case State::kStart:
        state_ = State::kFile;
        return;
      case State::kFile:
        state_ = in_metadata_ ? State::kMetadata : State::kTensor;
        return;
      default:
        refuse("an object");
    }
  }

  void end_object() override {
    switch (state_) {
      case State::kTensor:
        finish_tensor();
        break;
      case State::kMetadata:
        tensor_.name.clear();
        break;
      default:
        state_ = State::kEnd;
        return;
    }
    state_ = State::kFile;
  }

  void key(std::string& name) override {
    switch (state_) {
      case State::kFile:
        begin_entry(name);
        return;
      case State::kMetadata:
        header_.metadata.emplace_back(std::move(name), "");
        return;
      default:
        field_ = field_of(name);
        return;
    }
  }

  void string(std::string& value) override {
    if (state_ == State::kMetadata) {
      header_.metadata.back().second = std::move(value);
    } else if (state_ == State::kTensor && field_ == kDType) {
      tensor_.dtype = dtype_of(value);
    } else {
      refuse("a string");
    }
  }

  void begin_array() override {
    if (state_ != State::kTensor || field_ == kDType) refuse("an array");
    state_ = field_ == kShape ? State::kShapeList : State::kOffsetList;
  }

  void end_array() override { state_ = State::kTensor; }

  void natural(uint64_t value) override {
    if (state_ == State::kShapeList) {
      if (rank_ == Shape::kMaxRank) throw Error(ErrorKind::kUnsupported, "has more than 4 dimensions");
      dims_[static_cast<size_t>(rank_++)] = checked_cast<int64_t>(value, "dimension");
    } else if (state_ == State::kOffsetList && n_offsets_ < 2) {
      offsets_[n_offsets_++] = value;
    } else {
      refuse("a number");
    }
  }

 private:
  enum class State { kStart, kFile, kTensor, kShapeList, kOffsetList, kMetadata, kEnd };
  enum Field : unsigned { kDType = 1, kShape = 2, kOffsets = 4 };

  void begin_entry(std::string& name) {
    in_metadata_ = name == "__metadata__";
    if (in_metadata_ && std::exchange(metadata_seen_, true)) throw Error(ErrorKind::kFormat, "the header has two __metadata__ maps");
    tensor_ = TensorInfo{};
    tensor_.name = std::move(name);
    fields_seen_ = 0;
    rank_ = 0;
    n_offsets_ = 0;
  }

  Field field_of(const std::string& name) {
    const Field field = name == "dtype" ? kDType : name == "shape" ? kShape : name == "data_offsets" ? kOffsets : Field{};
    if (field == Field{}) throw Error(ErrorKind::kFormat, "unknown field '" + name + "'");
    if ((fields_seen_ & field) != 0) throw Error(ErrorKind::kFormat, "field '" + name + "' occurs twice");
    fields_seen_ |= field;
    return field;
  }

  void finish_tensor() {
    if (fields_seen_ != (kDType | kShape | kOffsets)) throw Error(ErrorKind::kFormat, "one of dtype, shape and data_offsets is missing");
    if (n_offsets_ != 2) throw Error(ErrorKind::kFormat, "data_offsets needs two numbers");
    const auto [begin, end] = offsets_;
    if (begin > end) {
      throw Error(ErrorKind::kFormat, "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "] run backwards");
    }
    tensor_.shape = Shape(std::span(dims_).first(static_cast<size_t>(rank_)));
    tensor_.size_bytes = tensor_size_bytes(tensor_.dtype, tensor_.shape);
    if (tensor_.size_bytes != end - begin) {
      throw Error(ErrorKind::kFormat, "shape " + tensor_.shape.to_string() + " of " + std::string(name_of(tensor_.dtype)) + " takes " +
                                          std::to_string(tensor_.size_bytes) + " bytes, data_offsets [" + std::to_string(begin) + ", " +
                                          std::to_string(end) + "] have " + std::to_string(end - begin));
    }
    tensor_.file_offset = checked_add(data_begin_, begin, "data offset");
    header_.tensors.push_back(std::move(tensor_));
    tensor_.name.clear();
  }

  uint64_t data_begin_;
  Header header_;
  State state_ = State::kStart;
  bool in_metadata_ = false;
  bool metadata_seen_ = false;
  TensorInfo tensor_;  // the entry being read
  Field field_{};
  unsigned fields_seen_ = 0;
  std::array<int64_t, Shape::kMaxRank> dims_{};
  int rank_ = 0;
  std::array<uint64_t, 2> offsets_{};
  size_t n_offsets_ = 0;
};

void check_unique_names(const Header& header) {
  std::vector<std::string_view> names;
  names.reserve(header.tensors.size());
  for (const TensorInfo& tensor : header.tensors) names.push_back(tensor.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end()) {
    throw Error(ErrorKind::kFormat, "the header names it twice").tensor(*twice);
  }
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : header.metadata) keys.push_back(key);
  std::ranges::sort(keys);
  if (const auto twice = std::ranges::adjacent_find(keys); twice != keys.end()) {
    throw Error(ErrorKind::kFormat, "__metadata__ has the key '" + std::string(*twice) + "' twice");
  }
}

// Sorts by position and checks that each range begins where the one before ended and that the last one ends the file. Empty
// tensors sort before the tensor that begins at the same byte.
void check_ranges(std::vector<TensorInfo>& tensors, uint64_t data_begin, uint64_t file_size_bytes) {
  std::ranges::sort(tensors, [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.file_offset, a.size_bytes, a.name) < std::tie(b.file_offset, b.size_bytes, b.name);
  });
  uint64_t end = data_begin;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.file_offset != end) {
      const char* problem = tensor.file_offset < end ? "overlaps the tensor before it, which" : "leaves a hole: the tensor before it";
      throw Error(ErrorKind::kFormat, "data begins at byte " + std::to_string(tensor.file_offset - data_begin) + " and " + problem +
                                          " ends at byte " + std::to_string(end - data_begin))
          .tensor(tensor.name);
    }
    end = checked_add(end, tensor.size_bytes, "end of the data");
  }
  if (end > file_size_bytes) {
    throw Error(ErrorKind::kFormat, "the header describes a file of " + std::to_string(end) + " bytes, this one has " +
                                        std::to_string(file_size_bytes) + " (incomplete download?)");
  }
  if (end < file_size_bytes) {
    throw Error(ErrorKind::kFormat, std::to_string(file_size_bytes - end) + " bytes follow the data of the last tensor").at(end);
  }
}

}  // namespace

uint64_t header_end(std::span<const std::byte> first8, uint64_t file_size_bytes) {
  if (first8.size() < kLengthBytes || file_size_bytes < kLengthBytes) {
    throw Error(ErrorKind::kFormat, "a file of " + std::to_string(file_size_bytes) + " bytes has no safetensors header");
  }
  const auto length = load_le<uint64_t>(first8.data());
  if (length > kMaxHeaderBytes) {
    throw Error(ErrorKind::kFormat, "header length " + std::to_string(length) + " is over the limit of " + std::to_string(kMaxHeaderBytes) +
                                        " bytes (not a safetensors file?)");
  }
  if (length > file_size_bytes - kLengthBytes) {
    throw Error(ErrorKind::kFormat, "a header of " + std::to_string(length) + " bytes does not fit in a file of " +
                                        std::to_string(file_size_bytes) + " bytes (incomplete download?)");
  }
  return kLengthBytes + length;
}

Header parse_header(std::span<const std::byte> head, uint64_t file_size_bytes) {
  const uint64_t data_begin = header_end(head.first(std::min<size_t>(head.size(), kLengthBytes)), file_size_bytes);
  if (head.size() < data_begin) throw Error(ErrorKind::kFormat, "the header is cut off after " + std::to_string(head.size()) + " bytes");
  const std::span<const std::byte> json = head.subspan(kLengthBytes, data_begin - kLengthBytes);
  if (json.empty() || json.front() != std::byte{'{'})
    throw Error(ErrorKind::kFormat, "the header does not begin with '{'").at(kLengthBytes);
  HeaderHandler handler(data_begin);
  try {
    parse_json(json, kHeaderDepth, handler);
  } catch (Error& e) {
    if (!handler.tensor_name().empty()) e.tensor(handler.tensor_name());
    throw;
  }
  Header header = handler.take();
  check_unique_names(header);
  check_ranges(header.tensors, data_begin, file_size_bytes);
  return header;
}

Header read_header(const InputFile& file) {
  try {
    std::vector<std::byte> head(std::min(file.size_bytes(), kLengthBytes));
    file.read_at(0, head);
    head.resize(header_end(head, file.size_bytes()));
    file.read_at(0, head);
    return parse_header(head, file.size_bytes());
  } catch (Error& e) {
    e.file(file.path().string());
    throw;
  }
}

}  // namespace quern::safetensors
