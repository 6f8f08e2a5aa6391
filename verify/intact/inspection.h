#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/gguf/metadata.h"
#include "formats/types/tensor.h"

namespace quern {

// What `quern inspect` knows about a file or a checkpoint folder. Only headers are read.
struct InspectedFile {
  std::string name;  // without folder
  uint64_t size_bytes = 0;
  uint64_t data_offset = 0;
  size_t n_tensors = 0;
};

struct InspectedTensor {
  std::string name;
  std::string type;  // "Q4_K"; "IQ4_KS (ik_llama.cpp)" of one that we cannot read
  Shape shape;
  uint64_t file_offset = 0;
  uint64_t size_bytes = 0;
  size_t file = 0;  // position in Inspection::files
};

// A type and everything that is stored as it. For packed encodings (two FP4 codes in an I8) the stored elements are not weights.
struct TypeTotal {
  std::string type;
  size_t n_tensors = 0;
  int64_t n_elements = 0;
  uint64_t size_bytes = 0;
};

// What the config.json of a checkpoint says, and what a conversion would make of it.
struct CheckpointModel {
  std::vector<std::pair<std::string, std::string>> config;  // model_type, architectures, quantization ...
  std::string gguf_arch;                                    // empty: it cannot be converted, `problem` says why
  std::string problem;
  std::vector<TypeTotal> encodings;  // logical weights by the type nearest to how they are stored; sizes with scales
  std::vector<std::string> notes;    // what a conversion leaves out or assumes
};

// Sums over lists of totals.
uint64_t total_bytes(std::span<const TypeTotal> totals);
int64_t total_elements(std::span<const TypeTotal> totals);

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
};

// `path` is a GGUF file, the first shard of a split one, a checkpoint folder or one safetensors file.
Inspection inspect(const std::filesystem::path& path);

double bits_per_element(uint64_t size_bytes, int64_t n_elements);  // 0 for none

// "quern.inspect/1", with a newline. path: as the file was named. Shapes are outermost first in both formats; offsets count from the start
// of the file, "file" is a position in "files".
std::string inspection_to_json(const Inspection& inspection, const std::string& path, bool with_tensors);

}  // namespace quern
