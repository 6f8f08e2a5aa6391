#include "formats/containers/gguf_container.h"

#include "formats/base/error.h"
#include "formats/base/sha256.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_edit.h"

namespace quern {
namespace {

constexpr std::string_view kExtension = ".gguf";
constexpr std::string_view kShardMark = "-of-";
constexpr size_t kShardDigits = 5;
constexpr uint32_t kQuantizationVersion = 2;  // GGML_QNT_VERSION
constexpr size_t kMaxFiles = 65535;           // split.count is a u16
constexpr const char* kSplitNo = "split.no";
constexpr const char* kSplitCount = "split.count";

// The padding that lets a header be edited in place is no value of the build.
ValueSums sums_of(const Metadata& metadata) {
  ValueSums sums;
  for (const auto& [key, value] : metadata.entries()) {
    if (key != gguf::kPaddingKey) sums.emplace_back(key, sha256_hex(gguf::serialize_value(value)));
  }
  return sums;
}

// The first file speaks for the model; every one of several knows its place.
Metadata metadata_of(const FileContents& file) {
  Metadata metadata;
  if (file.number == 0) metadata = file.metadata;
  if (file.n_files > 1) {
    metadata.set(kSplitNo, static_cast<uint16_t>(file.number));
    metadata.set(kSplitCount, static_cast<uint16_t>(file.n_files));
    metadata.set("split.tensors.count", static_cast<int32_t>(file.n_tensors));
  }
  if (file.number == 0 && !file.tensors.empty()) gguf::reserve_padding(metadata);
  return metadata;
}

// -1 for a key that is absent or no number.
int64_t number_of(const Metadata& metadata, const char* key) {
  try {
    return metadata.find_int(key).value_or(-1);
  } catch (const Error&) {
    return -1;
  }
}

FileHeader header_of(const gguf::Header& header) {
  const FileHeader::Place place{number_of(header.metadata, kSplitNo), number_of(header.metadata, kSplitCount)};
  return {header.tensors, sums_of(header.metadata), place};
}

class GgufContainer final : public Container {
 public:
  std::string_view name() const noexcept override { return "gguf"; }
  std::string_view title() const noexcept override { return "GGUF"; }
  Dialect dialect() const noexcept override { return Dialect::kGguf; }

  std::string file_name(std::string_view stem, size_t number, size_t n_files) const override {
    if (n_files == 1) return std::string(stem) + std::string(kExtension);
    return gguf::split_name(stem, static_cast<int64_t>(number), static_cast<int64_t>(n_files));
  }
  std::string_view extension() const noexcept override { return kExtension; }
  bool is_file_name(std::string_view file) const override { return file.ends_with(kExtension); }
  bool is_first_file_name(std::string_view file) const override {
    const size_t mark = file.rfind(kShardMark);
    const bool shard = mark != std::string_view::npos && mark >= kShardDigits &&
                       file.size() == mark + kShardMark.size() + kShardDigits + kExtension.size();
    return is_file_name(file) && (!shard || file.substr(mark - kShardDigits, kShardDigits) == "00001");
  }
  size_t max_files() const noexcept override { return kMaxFiles; }

  std::string why_not_name(std::string_view tensor) const override {
    if (tensor.size() <= gguf::kMaxNameBytes) return "";
    return "is longer than " + std::to_string(gguf::kMaxNameBytes) + " bytes, GGUF's limit";
  }
  std::vector<Plane> planes(DType type) const override {
    if (traits(type).gguf_id < 0) return {};
    return {{0, static_cast<uint32_t>(traits(type).block_bytes)}};
  }
  std::vector<TensorInfo> arrays(const TensorInfo& tensor) const override { return {tensor}; }
  uint64_t alignment() const noexcept override { return gguf::kDefaultAlignment; }

  void set_type_keys(int32_t mix_number, Metadata& metadata) const override {
    metadata.set("general.quantization_version", kQuantizationVersion);
    metadata.set("general.file_type", static_cast<uint32_t>(mix_number));
  }
  bool is_of_the_file(std::string_view key) const override {
    return key.starts_with("split.") || key == "general.alignment" || key == "general.file_type" || key == "general.quantization_version";
  }

  std::vector<std::byte> header(const FileContents& file) const override { return gguf::serialize_header(metadata_of(file), file.tensors); }
  ValueSums values(const FileContents& file) const override { return sums_of(metadata_of(file)); }

  FileHeader read_header(const InputFile& file) const override { return header_of(gguf::read_header(file)); }
  std::vector<OpenedFile> open(const std::filesystem::path& first) const override {
    const gguf::File set(first);
    std::vector<OpenedFile> files;
    for (size_t f = 0; f < set.files().size(); ++f) {
      files.push_back({InputFile(set.files()[f].path()), header_of(set.headers()[f])});
    }
    return files;
  }
};

}  // namespace

const Container& gguf_container() {
  static const GgufContainer kContainer;
  return kContainer;
}

}  // namespace quern
