#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/metadata.h"
#include "formats/tensor.h"

namespace quern::cli {

// What `quern inspect` knows about a file or a checkpoint folder. Only headers are read.
struct InspectedFile {
  std::string name;  // without folder
  uint64_t size_bytes = 0;
  uint64_t data_offset = 0;
  size_t n_tensors = 0;
};

struct InspectedTensor {
  TensorInfo info;
  size_t file = 0;  // position in Inspection::files
};

// A type and everything that is stored as it. For packed encodings (two FP4 codes in an I8) the stored elements are not weights.
struct TypeTotal {
  DType dtype;
  size_t n_tensors = 0;
  int64_t n_elements = 0;
  uint64_t size_bytes = 0;
};

// What the config.json of a checkpoint says, and what quern would make of it.
struct CheckpointModel {
  std::vector<std::pair<std::string, std::string>> config;  // model_type, architectures, quantization ...
  std::optional<std::string> gguf_arch;
  std::string problem;  // why there is no gguf_arch
};

struct Inspection {
  enum class Format { kGguf, kSafetensors };
  Format format = Format::kGguf;
  uint32_t version = 0;    // GGUF
  uint64_t alignment = 0;  // GGUF
  std::vector<InspectedFile> files;
  Metadata metadata;  // GGUF metadata of the first file, or __metadata__ of a safetensors file
  std::vector<InspectedTensor> tensors;
  std::vector<TypeTotal> types;          // most bytes first
  std::optional<CheckpointModel> model;  // checkpoint folders

  uint64_t tensor_bytes() const;
  int64_t n_elements() const;
};

// `path` is a GGUF file, the first shard of a split one, a checkpoint folder or one safetensors file.
Inspection inspect(const std::filesystem::path& path);

}  // namespace quern::cli
