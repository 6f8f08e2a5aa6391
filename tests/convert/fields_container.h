#pragma once

#include <cstring>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "formats/base/bytes.h"
#include "formats/base/error.h"
#include "formats/base/sha256.h"
#include "formats/containers/container.h"

namespace quern::test {

// A container of the tests that is unlike GGUF where the contract allows it: Q4_1 becomes three arrays (codes, scales, minima), everything
// else one; every build has a folder of its own with a side file; files do not know their number. A file is the length of its header, the
// header as lines of text, zeros up to a multiple of 16, and the arrays, each at a multiple of 16.
class FieldsContainer final : public Container {
 public:
  std::string_view name() const noexcept override { return "fields"; }
  std::string_view title() const noexcept override { return "fields"; }
  Dialect dialect() const noexcept override { return Dialect::kGguf; }

  std::string file_name(std::string_view, size_t number, size_t n_files) const override {
    return "data-" + std::to_string(number + 1) + "-of-" + std::to_string(n_files) + ".fields";
  }
  std::string_view extension() const noexcept override { return ".fields"; }
  bool is_file_name(std::string_view file) const override { return file.ends_with(".fields"); }
  bool is_first_file_name(std::string_view file) const override { return file.starts_with("data-1-of-") && is_file_name(file); }
  size_t max_files() const noexcept override { return 1000; }
  bool has_own_folder() const noexcept override { return true; }

  std::string why_not_name(std::string_view tensor) const override {
    return tensor.find(' ') == std::string_view::npos ? "" : "has a space";
  }
  std::vector<Plane> planes(DType type) const override {
    if (type == DType::Q4_1) return {{4, 16}, {0, 2}, {2, 2}};
    if (type == DType::Q8_0) return {};
    return {{0, static_cast<uint32_t>(traits(type).block_bytes)}};
  }
  std::vector<TensorInfo> arrays(const TensorInfo& tensor) const override {
    if (tensor.dtype != DType::Q4_1) return {tensor};
    const auto array = [&](const char* suffix, DType type, int64_t row_length) {
      std::vector<int64_t> dims(tensor.shape.dims().begin(), tensor.shape.dims().end());
      dims.back() = row_length;
      const Shape shape(dims);
      return TensorInfo{tensor.name + suffix, type, shape, 0, tensor_size_bytes(type, shape)};
    };
    const int64_t n = tensor.shape.row_length();
    return {array(".codes", DType::U8, n / 2), array(".scales", DType::F16, n / 32), array(".minima", DType::F16, n / 32)};
  }
  uint64_t alignment() const noexcept override { return kAlignment; }

  void set_type_keys(int32_t mix_number, Metadata& metadata) const override {
    metadata.set("fields.mix", static_cast<uint32_t>(mix_number));
  }
  bool is_of_the_file(std::string_view) const override { return false; }

  std::vector<std::byte> header(const FileContents& file) const override {
    std::ostringstream text;
    text << recipe_of(file) << "\n";
    for (const TensorInfo& tensor : file.tensors) {
      for (const TensorInfo& array : arrays(tensor)) {
        text << array.name << " " << name_of(array.dtype) << " " << array.shape.rank();
        for (const int64_t dim : array.shape.dims()) text << " " << dim;
        text << "\n";
      }
    }
    std::vector<std::byte> bytes((sizeof(uint64_t) + text.str().size() + kAlignment - 1) / kAlignment * kAlignment);
    store_le(bytes.data(), uint64_t{text.str().size()});
    std::memcpy(bytes.data() + sizeof(uint64_t), text.str().data(), text.str().size());
    return bytes;
  }
  ValueSums values(const FileContents& file) const override { return {{"recipe", sha256_hex(recipe_of(file))}}; }
  std::vector<SideFile> side_files(const Metadata& metadata, std::span<const NamedFile> files,
                                   const std::filesystem::path&) const override {
    std::string text = metadata.find_string("general.architecture").value_or("") + "\n";
    for (const NamedFile& file : files) text += file.name + " " + std::to_string(file.tensors.size()) + "\n";
    return {{"index.txt", text}};
  }

  FileHeader read_header(const InputFile& file) const override {
    std::vector<std::byte> length(sizeof(uint64_t));
    file.read_at(0, length);
    std::string text(static_cast<size_t>(load_le<uint64_t>(length.data())), '\0');
    file.read_at(length.size(), std::as_writable_bytes(std::span(text)));
    uint64_t offset = (length.size() + text.size() + kAlignment - 1) / kAlignment * kAlignment;
    std::istringstream in(text);
    FileHeader header;
    std::string recipe, array, type;
    std::getline(in, recipe);
    header.values = {{"recipe", sha256_hex(recipe)}};
    for (int rank = 0; in >> array >> type >> rank;) {
      std::vector<int64_t> dims(static_cast<size_t>(rank));
      for (int64_t& dim : dims) in >> dim;
      const Shape shape(dims);
      const DType dtype = find_dtype_by_name(type).value();
      header.arrays.push_back({array, dtype, shape, offset, tensor_size_bytes(dtype, shape)});
      offset = (offset + header.arrays.back().size_bytes + kAlignment - 1) / kAlignment * kAlignment;
    }
    return header;
  }
  std::vector<OpenedFile> open(const std::filesystem::path& first) const override {
    InputFile file(first);
    FileHeader header = read_header(file);
    std::vector<OpenedFile> files;
    files.push_back({std::move(file), std::move(header)});
    return files;
  }

 private:
  static constexpr uint64_t kAlignment = 16;

  static std::string recipe_of(const FileContents& file) { return file.metadata.find_string("quern.recipe").value_or(""); }
};

inline const Container& fields_container() {
  static const FieldsContainer kContainer;
  return kContainer;
}

}  // namespace quern::test
