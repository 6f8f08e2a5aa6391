#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/base/bytes.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/metadata.h"
#include "formats/types/tensor.h"

// Tiny containers for tests, in memory and on disk. They write what they are told, right or wrong, so that readers can be shown
// broken files; only GgufBuilder goes through the checked writer.
//
//   TempDir dir;                                                       // removed at the end of the scope
//   write_bytes(dir / "model.safetensors",                             // one file, data included
//               SafetensorsBuilder().add("a", DType::F32, {2, 3}, floats_to_bytes({1, 2, 3, 4, 5, 6})).file());
//   write_checkpoint(dir.path(), {{"model-1.safetensors", shard1}, {"model-2.safetensors", shard2}});   // shards and index
//   SafetensorsBuilder big;                                            // 4.5 GB that take no disk: data are zeros in a hole
//   big.add_zeros("experts", DType::BF16, {256, 2048, 4096});
//   write_sparse(dir / "model.safetensors", big.header(), big.data_bytes());
//   write_bytes(dir / "m.gguf", GgufBuilder().set("general.architecture", std::string("llama")).add("t", DType::F32, {4}, bytes).file());

namespace quern::test {

class TempDir {
 public:
  explicit TempDir(const std::filesystem::path& parent = std::filesystem::temp_directory_path()) {
    std::string name = (parent / "quern-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

using Bytes = std::vector<std::byte>;

inline Bytes to_bytes(std::string_view text) {
  Bytes bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

template <typename T>
Bytes values_to_bytes(const std::vector<T>& values) {
  Bytes bytes(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

inline Bytes floats_to_bytes(const std::vector<float>& values) { return values_to_bytes(values); }

inline void append(Bytes& to, const Bytes& from) { to.insert(to.end(), from.begin(), from.end()); }

inline void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

inline void write_text(const std::filesystem::path& path, std::string_view text) { write_bytes(path, std::as_bytes(std::span(text))); }

// The header followed by data_bytes zeros that the file system does not store.
inline void write_sparse(const std::filesystem::path& path, std::span<const std::byte> header, uint64_t data_bytes) {
  write_bytes(path, header);
  if (truncate(path.c_str(), static_cast<off_t>(header.size() + data_bytes)) != 0) throw std::runtime_error("truncate failed");
}

// "8-byte length + JSON", the text taken as it is.
inline Bytes safetensors_header(std::string_view json) {
  Bytes bytes(8);
  store_le<uint64_t>(bytes.data(), json.size());
  append(bytes, to_bytes(json));
  return bytes;
}

class SafetensorsBuilder {
 public:
  SafetensorsBuilder& add(std::string_view name, DType dtype, const Shape& shape, const Bytes& data) {
    add_entry(name, dtype, shape, data.size());
    append(data_, data);
    return *this;
  }
  // Counts in header() and data_bytes() but holds no data: for write_sparse.
  SafetensorsBuilder& add_zeros(std::string_view name, DType dtype, const Shape& shape) {
    add_entry(name, dtype, shape, tensor_size_bytes(dtype, shape));
    return *this;
  }
  SafetensorsBuilder& metadata(std::string_view key, std::string_view value) {
    metadata_ += (metadata_.empty() ? "\"" : ",\"") + std::string(key) + "\":\"" + std::string(value) + "\"";
    return *this;
  }

  std::string json() const {
    if (metadata_.empty()) return "{" + entries_ + "}";
    return "{\"__metadata__\":{" + metadata_ + "}" + (entries_.empty() ? "" : ",") + entries_ + "}";
  }
  Bytes header() const { return safetensors_header(json()); }
  Bytes file() const {
    Bytes bytes = header();
    append(bytes, data_);
    return bytes;
  }
  uint64_t data_bytes() const { return data_bytes_; }
  const std::vector<std::string>& names() const { return names_; }

 private:
  void add_entry(std::string_view name, DType dtype, const Shape& shape, uint64_t size_bytes) {
    const std::string begin = std::to_string(data_bytes_);
    data_bytes_ += size_bytes;
    names_.emplace_back(name);
    entries_ += (entries_.empty() ? "\"" : ",\"") + std::string(name) + "\":{\"dtype\":\"" + std::string(name_of(dtype)) +
                "\",\"shape\":" + shape.to_string() + ",\"data_offsets\":[" + begin + "," + std::to_string(data_bytes_) + "]}";
  }

  std::string entries_;
  std::string metadata_;
  std::vector<std::string> names_;
  Bytes data_;
  uint64_t data_bytes_ = 0;
};

// The index that lists every tensor of every shard.
inline std::string index_json(const std::map<std::string, SafetensorsBuilder>& shards) {
  std::string map;
  for (const auto& [file, builder] : shards) {
    for (const std::string& name : builder.names()) map += (map.empty() ? "\"" : ",\"") + name + "\":\"" + file + "\"";
  }
  return "{\"metadata\":{\"total_size\":0},\"weight_map\":{" + map + "}}";
}

// Shards (sparse where add_zeros was used last) and their index.
inline void write_checkpoint(const std::filesystem::path& folder, const std::map<std::string, SafetensorsBuilder>& shards) {
  for (const auto& [file, builder] : shards) {
    const Bytes bytes = builder.file();
    write_sparse(folder / file, bytes, builder.header().size() + builder.data_bytes() - bytes.size());
  }
  write_text(folder / "model.safetensors.index.json", index_json(shards));
}

// A GGUF file through quern's own writer.
class GgufBuilder {
 public:
  GgufBuilder& set(std::string_view key, MetaValue value) {
    metadata_.set(key, std::move(value));
    return *this;
  }
  GgufBuilder& add(std::string_view name, DType dtype, const Shape& shape, const Bytes& data) {
    tensors_.push_back({std::string(name), dtype, shape, 0, data.size()});
    data_.push_back(data);
    return *this;
  }
  GgufBuilder& add_zeros(std::string_view name, DType dtype, const Shape& shape) {
    return add(name, dtype, shape, Bytes(tensor_size_bytes(dtype, shape)));
  }

  Bytes file(uint64_t alignment = gguf::kDefaultAlignment) const {
    Bytes bytes = gguf::serialize_header(metadata_, tensors_, alignment);
    const size_t data_begin = bytes.size();
    const gguf::Layout places = gguf::layout(tensors_, alignment);
    bytes.resize(data_begin + places.blob_bytes);
    for (size_t i = 0; i < data_.size(); ++i) {
      if (!data_[i].empty()) std::memcpy(bytes.data() + data_begin + places.offsets[i], data_[i].data(), data_[i].size());
    }
    return bytes;
  }
  const Metadata& metadata() const { return metadata_; }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }

 private:
  Metadata metadata_;
  std::vector<TensorInfo> tensors_;
  std::vector<Bytes> data_;
};

}  // namespace quern::test
