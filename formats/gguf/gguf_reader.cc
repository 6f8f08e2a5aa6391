#include <algorithm>
#include <array>
#include <optional>

#include "formats/base/bytes.h"
#include "formats/base/checked.h"
#include "formats/base/model_folder.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_survey.h"
#include "formats/gguf/gguf_types.h"
#include "formats/types/foreign_types.h"

// A header is read once from front to back, and no number in it is believed before what is left of the file has been asked: a count must
// fit into it at the fewest bytes that one of its things can take, strings and the header as a whole have limits of their own. So what is
// allocated is at most a small multiple of what the file really holds, whatever a hostile header says.
//
// The alignment is a metadata key, so descriptions of tensors can only be judged once all keys are known. Each tensor must begin where the
// padded data of the one before it ends, which leaves neither holes nor overlaps; where the data itself begins follows from the length of
// the header and is known last, and with it whether the file is long enough. Only the padding of the last tensor may be missing, as some
// programs leave it out. The size of a tensor of a foreign type is not known: it reaches to where the next one begins.
//
// The doctor reads broken files by the same code. Given a list of problems the parser notes there what concerns one entry only and reads
// on; it still throws where it cannot know how many bytes to pass over, as behind a value of an unknown type.

namespace quern::gguf {
namespace {

// Bytes of the header in order, from a span or, in windows, from a file. Nothing is allocated that the file does not back.
class HeaderStream {
 public:
  HeaderStream(std::span<const std::byte> head, uint64_t file_size_bytes) : window_(head), file_size_bytes_(file_size_bytes) {}
  explicit HeaderStream(const InputFile& file) : file_(&file), file_size_bytes_(file.size_bytes()) {}

  uint64_t position() const noexcept { return position_; }
  uint64_t file_size_bytes() const noexcept { return file_size_bytes_; }
  uint64_t remaining() const noexcept { return file_size_bytes_ - position_; }

  // Whether another GGUF header begins there. False where only the header was given.
  bool has_magic_at(uint64_t offset) const {
    std::array<char, kMagic.size()> bytes{};
    if (file_ == nullptr || offset > file_size_bytes_ || file_size_bytes_ - offset < bytes.size()) return false;
    file_->read_at(offset, std::as_writable_bytes(std::span(bytes)));
    return std::string_view(bytes.data(), bytes.size()) == kMagic;
  }

  // The next n bytes, valid until the next call.
  std::span<const std::byte> take(uint64_t n) {
    if (n > remaining()) {
      throw Error(ErrorKind::kFormat,
                  std::to_string(n) + " bytes expected, " + std::to_string(remaining()) + " are left in the file (incomplete download?)")
          .at(position_);
    }
    if (n > kMaxHeaderBytes - position_) {
      throw Error(ErrorKind::kFormat, "the header is larger than " + std::to_string(kMaxHeaderBytes) + " bytes").at(position_);
    }
    if (n > window_.size() - used_) refill(n);
    const auto bytes = window_.subspan(used_, n);
    used_ += n;
    position_ += n;
    return bytes;
  }

  template <typename T>
  T take_value() {
    return load_le<T>(take(sizeof(T)).data());
  }

 private:
  static constexpr uint64_t kWindowBytes = 1 << 20;

  void refill(uint64_t n) {
    if (file_ == nullptr) throw Error(ErrorKind::kFormat, "the header is cut off here").at(position_);
    buffer_.resize(std::min(std::max(n, kWindowBytes), remaining()));
    file_->read_at(position_, buffer_);
    window_ = buffer_;
    used_ = 0;
  }

  const InputFile* file_ = nullptr;
  std::vector<std::byte> buffer_;
  std::span<const std::byte> window_;
  size_t used_ = 0;  // bytes of the window already taken
  uint64_t position_ = 0;
  uint64_t file_size_bytes_;
};

std::string quoted_key(const std::string& key) { return "metadata key '" + key + "'"; }

class HeaderParser {
 public:
  // problems: nullptr to throw at the first broken rule; else rules that only concern one entry are noted there and reading goes on.
  HeaderParser(HeaderStream stream, ForeignTypes foreign, std::vector<std::string>* problems = nullptr)
      : in_(std::move(stream)), foreign_(foreign), problems_(problems) {}

  Header parse() {
    read_magic_and_version();
    const int64_t n_tensors = read_count("tensors", kMaxTensors, kMinTensorBytes);
    const int64_t n_keys = read_count("metadata keys", kMaxKeys, kMinKeyBytes);
    for (int64_t i = 0; i < n_keys; ++i) read_key();
    read_alignment();
    header_.tensors.reserve(static_cast<size_t>(n_tensors));
    for (int64_t i = 0; i < n_tensors; ++i) read_tensor();
    check_unique_names();
    finish();
    return std::move(header_);
  }

 private:
  static constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;         // name of one byte, type, value
  static constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 4 + 8;  // name of one byte, rank, type, offset

  void object(const Error& error) {
    if (problems_ == nullptr) throw error;
    problems_->push_back(error.what());
  }

  void read_magic_and_version() {
    const auto magic = in_.take(4);
    const std::string_view text(reinterpret_cast<const char*>(magic.data()), magic.size());
    if (text != kMagic) throw Error(ErrorKind::kFormat, "does not begin with 'GGUF' (not a GGUF file)");
    header_.version = in_.take_value<uint32_t>();
    if ((header_.version & 0xFFFF) == 0)
      throw Error(ErrorKind::kUnsupported, "is a big-endian GGUF file; only little-endian ones are read");
    if (header_.version != 2 && header_.version != 3) {
      throw Error(ErrorKind::kUnsupported, "GGUF version " + std::to_string(header_.version) + "; only versions 2 and 3 are read").at(4);
    }
  }

  int64_t read_count(const char* what, int64_t max, uint64_t min_bytes_each) {
    const uint64_t at = in_.position();
    const auto count = in_.take_value<int64_t>();
    if (count < 0 || count > max) {
      throw Error(ErrorKind::kFormat,
                  "number of " + std::string(what) + " is " + std::to_string(count) + ", at most " + std::to_string(max) + " expected")
          .at(at);
    }
    if (static_cast<uint64_t>(count) * min_bytes_each > in_.remaining()) {
      throw Error(ErrorKind::kFormat, std::to_string(count) + " " + what + " do not fit in the file (incomplete download?)").at(at);
    }
    return count;
  }

  std::string read_string(uint64_t max_bytes, const char* what) {
    const uint64_t at = in_.position();
    const auto size = in_.take_value<uint64_t>();
    if (size > max_bytes) {
      throw Error(ErrorKind::kFormat,
                  std::string(what) + " of " + std::to_string(size) + " bytes, at most " + std::to_string(max_bytes) + " expected")
          .at(at);
    }
    const auto bytes = in_.take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  void read_key() {
    const uint64_t at = in_.position();
    const std::string key = read_string(kMaxKeyBytes, "metadata key");
    if (key.empty()) object(Error(ErrorKind::kFormat, "empty metadata key").at(at));
    if (header_.metadata.find(key) != nullptr) object(Error(ErrorKind::kFormat, quoted_key(key) + " occurs twice").at(at));
    const uint64_t type_at = in_.position();
    const auto type = in_.take_value<uint32_t>();
    if (type == kArrayType) return read_array(key);
    const bool known = visit_value_type(type, [&]<typename T>(std::type_identity<T>) { header_.metadata.set(key, read_scalar<T>(key)); });
    if (!known) {
      throw Error(ErrorKind::kFormat, quoted_key(key) + " has the unknown value type " + std::to_string(type)).at(type_at);
    }
  }

  void read_array(const std::string& key) {
    const uint64_t type_at = in_.position();
    const auto type = in_.take_value<uint32_t>();
    if (type == kArrayType) throw Error(ErrorKind::kUnsupported, quoted_key(key) + " is an array of arrays").at(type_at);
    const auto count = in_.take_value<uint64_t>();
    const bool known =
        visit_value_type(type, [&]<typename T>(std::type_identity<T>) { header_.metadata.set(key, read_elements<T>(key, count)); });
    if (!known) {
      throw Error(ErrorKind::kFormat, quoted_key(key) + " has the unknown element type " + std::to_string(type)).at(type_at);
    }
  }

  template <typename T>
  T read_scalar(const std::string& key) {
    if constexpr (std::is_same_v<T, std::string>) {
      return read_string(kMaxHeaderBytes, "string");
    } else if constexpr (std::is_same_v<T, bool>) {
      const uint64_t at = in_.position();
      const auto value = in_.take_value<uint8_t>();
      if (value > 1) object(Error(ErrorKind::kFormat, quoted_key(key) + " has the bool value " + std::to_string(value)).at(at));
      return value != 0;
    } else {
      return in_.take_value<T>();
    }
  }

  template <typename T>
  std::vector<T> read_elements(const std::string& key, uint64_t count) {
    constexpr bool kIsString = std::is_same_v<T, std::string>;
    constexpr uint64_t kMinBytes = kIsString ? sizeof(uint64_t) : std::is_same_v<T, bool> ? 1 : sizeof(T);
    if (count > in_.remaining() / kMinBytes) {
      throw Error(ErrorKind::kFormat, quoted_key(key) + ": " + std::to_string(count) + " elements do not fit in the file")
          .at(in_.position());
    }
    std::vector<T> values;
    if constexpr (kIsString || std::is_same_v<T, bool>) {
      if (kIsString) count_array_strings(key, count);
      for (uint64_t i = 0; i < count; ++i) values.push_back(read_scalar<T>(key));
    } else {
      const auto bytes = in_.take(count * sizeof(T));
      values.resize(count);
      if (count != 0) std::memcpy(values.data(), bytes.data(), bytes.size());
    }
    return values;
  }

  // A std::string takes four times the eight bytes that an empty string has in the file.
  void count_array_strings(const std::string& key, uint64_t count) {
    if (count > kMaxArrayStrings - n_array_strings_) {
      throw Error(ErrorKind::kFormat, quoted_key(key) + ": more than " + std::to_string(kMaxArrayStrings) + " strings in arrays")
          .at(in_.position());
    }
    n_array_strings_ += count;
  }

  void read_alignment() {
    const MetaValue* value = header_.metadata.find(kAlignmentKey);
    if (value == nullptr) return;
    const auto* alignment = std::get_if<uint32_t>(value);
    if (alignment == nullptr) return object(Error(ErrorKind::kFormat, "general.alignment is not a u32"));
    if (!std::has_single_bit(*alignment)) {
      return object(Error(ErrorKind::kFormat, "general.alignment " + std::to_string(*alignment) + " is not a power of two"));
    }
    header_.alignment = *alignment;
  }

  // Reads one tensor description; the tensor must begin at blob_bytes_, which then moves past it.
  void read_tensor() {
    const uint64_t at = in_.position();
    TensorInfo tensor;
    tensor.name = read_string(problems_ == nullptr ? kMaxNameBytes : kMaxKeyBytes, "tensor name");
    if (tensor.name.empty()) object(Error(ErrorKind::kFormat, "empty tensor name").at(at));
    try {
      const std::vector<int64_t> dims = read_dims();
      const auto type = in_.take_value<int32_t>();
      const uint64_t offset_at = in_.position();
      tensor.file_offset = in_.take_value<uint64_t>();
      place_tensor(tensor, dims, type, offset_at);
    } catch (Error& e) {
      e.tensor(tensor.name).at(at);
      throw;
    }
  }

  // The description is read; what is wrong from here on concerns this tensor only.
  void place_tensor(TensorInfo& tensor, const std::vector<int64_t>& dims, int32_t type, uint64_t offset_at) {
    try {
      for (const int64_t dim : dims) {
        if (dim <= 0) throw Error(ErrorKind::kFormat, "dimension " + std::to_string(dim) + " is not positive");
      }
      tensor.shape = Shape(dims);
      const std::optional<DType> dtype = find_dtype_by_gguf_id(type);
      if (!dtype && foreign_ == ForeignTypes::kRefuse) throw Error(ErrorKind::kUnsupported, why_not_read(type));
      if (dtype) {
        tensor.dtype = *dtype;
        tensor.size_bytes = tensor_size_bytes(tensor.dtype, tensor.shape);
      }
      check_offset(tensor, offset_at);
      if (!dtype) {
        tensor.shape.n_elements();  // throws when there are too many
        header_.foreign.push_back({std::move(tensor.name), type, tensor.shape, tensor.file_offset, 0});
        open_end_ = true;
        return;
      }
      data_end_ = checked_add(tensor.file_offset, tensor.size_bytes, "end of the data");
      blob_bytes_ = checked_add(data_end_, header_.alignment - 1, "end of the data") / header_.alignment * header_.alignment;
      header_.tensors.push_back(std::move(tensor));
    } catch (Error& e) {
      if (problems_ == nullptr) throw;
      object(e.tensor(tensor.name));  // without a size it has no place
    }
  }

  // A tensor begins where the one before it ends. Behind a foreign one that is anywhere, and says how long that is.
  void check_offset(const TensorInfo& tensor, uint64_t offset_at) {
    const bool anywhere = open_end_ && tensor.file_offset > blob_bytes_ && tensor.file_offset % header_.alignment == 0;
    if (anywhere) header_.foreign.back().size_bytes = tensor.file_offset - blob_bytes_;
    if (!anywhere && tensor.file_offset != blob_bytes_) {
      object(Error(ErrorKind::kFormat, "data offset " + std::to_string(tensor.file_offset) + ", but the tensor before it ends at " +
                                           std::to_string(blob_bytes_) + " (padding included)")
                 .at(offset_at)
                 .tensor(tensor.name));
    }
    open_end_ = false;
    blob_bytes_ = tensor.file_offset;
  }

  // Outermost first.
  std::vector<int64_t> read_dims() {
    const auto rank = in_.take_value<uint32_t>();
    if (rank > Shape::kMaxRank) throw Error(ErrorKind::kFormat, std::to_string(rank) + " dimensions, at most 4 expected");
    std::vector<int64_t> dims(rank);
    for (uint32_t i = rank; i-- > 0;) dims[i] = in_.take_value<int64_t>();  // innermost first in the file
    return dims;
  }

  void check_unique_names() {
    std::vector<std::string_view> names;
    names.reserve(header_.tensors.size() + header_.foreign.size());
    for (const TensorInfo& tensor : header_.tensors) names.push_back(tensor.name);
    for (const ForeignTensor& tensor : header_.foreign) names.push_back(tensor.name);
    std::ranges::sort(names);
    const auto twice = std::ranges::adjacent_find(names);
    if (twice != names.end()) object(Error(ErrorKind::kFormat, "the header names it twice").tensor(*twice));
  }

  // Fixes where the data begins, turns relative offsets into file offsets and checks the size of the file.
  void finish() {
    const uint64_t header_bytes = in_.position();
    const uint64_t file_size_bytes = in_.file_size_bytes();
    header_.data_offset = align_up(header_bytes, header_.alignment);
    for (TensorInfo& tensor : header_.tensors) {
      tensor.file_offset = checked_add(tensor.file_offset, header_.data_offset, "data offset");
      const uint64_t tensor_end = checked_add(tensor.file_offset, tensor.size_bytes, "end of the data");
      if (tensor_end > file_size_bytes) {
        object(Error(ErrorKind::kFormat, "data ends at byte " + std::to_string(tensor_end) + ", the file has " +
                                             std::to_string(file_size_bytes) + " (incomplete download?)")
                   .tensor(tensor.name));
      }
    }
    for (ForeignTensor& tensor : header_.foreign) {
      tensor.file_offset = checked_add(tensor.file_offset, header_.data_offset, "data offset");
      if (tensor.file_offset >= file_size_bytes) {
        object(Error(ErrorKind::kFormat, "data begins at byte " + std::to_string(tensor.file_offset) + ", the file has " +
                                             std::to_string(file_size_bytes) + " (incomplete download?)")
                   .tensor(tensor.name));
      } else if (tensor.size_bytes == 0) {
        tensor.size_bytes = file_size_bytes - tensor.file_offset;
      }
    }
    if (!open_end_) check_size(header_bytes);
  }

  // Behind the last tensor there may be its padding and nothing else.
  void check_size(uint64_t header_bytes) {
    const uint64_t size = in_.file_size_bytes();
    const uint64_t end = checked_add(header_.data_offset, blob_bytes_, "end of the data");
    const uint64_t least = data_end_ == 0 ? header_bytes : header_.data_offset + data_end_;
    if (least <= size && size <= end) return;
    for (const uint64_t next : {least, end}) {
      if (!in_.has_magic_at(next)) continue;
      return object(Error(ErrorKind::kFormat, "is several GGUF files put together by cat: the second begins at byte " +
                                                  std::to_string(next) +
                                                  ". Shards stay files of their own, of which the first is given; for one file of them: "
                                                  "quern quantize FIRST -o OUT.gguf --type lossless"));
    }
    object(Error(ErrorKind::kFormat, "the file has " + std::to_string(size) + " bytes, its header asks for " + std::to_string(end) +
                                         " with the padding of the last tensor"));
  }

  HeaderStream in_;
  ForeignTypes foreign_;
  std::vector<std::string>* problems_;
  Header header_;
  uint64_t n_array_strings_ = 0;
  uint64_t data_end_ = 0, blob_bytes_ = 0;  // of the tensors so far, without and with the padding of the last
  bool open_end_ = false;                   // the last one is foreign and begins at blob_bytes_
};

// What browsers and cut-up uploads put behind ".gguf". Empty for other names.
std::string_view behind_gguf(std::string_view name) {
  constexpr std::string_view kExtension = ".gguf";
  const size_t at = name.rfind(kExtension);
  return at == std::string_view::npos ? std::string_view() : name.substr(at + kExtension.size());
}

// Why a file that is no whole GGUF file is none, as far as its name says so; empty when it does not.
std::string explain_by_name(const std::string& name) {
  const std::string_view rest = behind_gguf(name);
  if (rest.empty() || rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-_") != std::string_view::npos) return "";
  for (const std::string_view unfinished : {".part", ".incomplete", ".crdownload", ".tmp", ".aria2", ".download"}) {
    if (rest == unfinished) return "is an unfinished download or conversion (by its name)";
  }
  const bool numbered = rest.find_first_not_of(".-_0123456789") == std::string_view::npos,
             letters = rest.size() == 3 && rest.starts_with(".a");
  if (!numbered && !letters && rest.find("part") == std::string_view::npos && rest.find("split") == std::string_view::npos) return "";
  const std::string whole = name.substr(0, name.size() - rest.size());
  return "is a part of a file that was cut by bytes (by its name); put all parts together in their order first: cat PARTS ... > " + whole;
}

}  // namespace

Header parse_header(std::span<const std::byte> head, uint64_t file_size_bytes) {
  return HeaderParser(HeaderStream(head, file_size_bytes), ForeignTypes::kRefuse).parse();
}

Header read_header(const InputFile& file, ForeignTypes foreign) {
  refuse_stand_in(file);
  try {
    return HeaderParser(HeaderStream(file), foreign).parse();
  } catch (Error& e) {
    e.file(file.path().string());
    const std::string why = e.kind() == ErrorKind::kFormat ? explain_by_name(file.path().filename().string()) : "";
    if (!why.empty()) throw Error(ErrorKind::kFormat, why).file(file.path().string());
    throw;
  }
}

Header survey_header(const InputFile& file, std::vector<std::string>& problems) {
  refuse_stand_in(file);
  return HeaderParser(HeaderStream(file), ForeignTypes::kList, &problems).parse();
}

}  // namespace quern::gguf
