#include "verify/intact/inspection.h"

#include <algorithm>
#include <array>
#include <memory>

#include "formats/arch/config.h"
#include "formats/base/checked.h"
#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_folder.h"
#include "formats/model/model_source.h"
#include "formats/safetensors/safetensors.h"
#include "formats/types/foreign_types.h"

namespace quern {
namespace fs = std::filesystem;
namespace {

InspectedFile describe(const InputFile& file) { return {.name = file.path().filename().string(), .size_bytes = file.size_bytes()}; }

void add_to_totals(std::string_view type, int64_t n_elements, uint64_t size_bytes, std::vector<TypeTotal>& totals) {
  auto total = std::ranges::find(totals, type, &TypeTotal::type);
  if (total == totals.end()) total = totals.insert(total, TypeTotal{.type = std::string(type)});
  ++total->n_tensors;
  total->n_elements = checked_add(total->n_elements, n_elements, "number of elements");
  total->size_bytes += size_bytes;
}

void sort_totals(std::vector<TypeTotal>& totals) { std::ranges::stable_sort(totals, std::ranges::greater(), &TypeTotal::size_bytes); }

void add_tensor(const TensorInfo& tensor, size_t file, Inspection& result) {
  result.tensors.push_back({tensor.name, std::string(name_of(tensor.dtype)), tensor.shape, tensor.file_offset, tensor.size_bytes, file});
  ++result.files[file].n_tensors;
}

// Those of a file in its order, foreign ones among the others.
void add_tensors(const gguf::Header& header, size_t file, Inspection& result) {
  const size_t first = result.tensors.size();
  for (const TensorInfo& tensor : header.tensors) add_tensor(tensor, file, result);
  for (const gguf::ForeignTensor& tensor : header.foreign) {
    result.tensors.push_back({tensor.name, foreign_type_name(tensor.type_id), tensor.shape, tensor.file_offset, tensor.size_bytes, file});
    ++result.files[file].n_tensors;
  }
  std::ranges::stable_sort(result.tensors.begin() + static_cast<ptrdiff_t>(first), result.tensors.end(), {}, &InspectedTensor::file_offset);
}

void add_safetensors_metadata(std::span<const std::pair<std::string, std::string>> map, Inspection& result) {
  for (const auto& [key, value] : map) result.metadata.set(key, value);
}

// Where the data of a safetensors file begins: the first tensor's offset, or its end when it has none.
void set_data_offsets(Inspection& result) {
  for (InspectedFile& file : result.files) file.data_offset = file.size_bytes;
  for (const InspectedTensor& tensor : result.tensors) {
    uint64_t& begin = result.files[tensor.file].data_offset;
    begin = std::min(begin, tensor.file_offset);
  }
}

Inspection inspect_gguf(const fs::path& path) {
  const gguf::File file(path, gguf::ForeignTypes::kList);
  Inspection result;
  result.format = Inspection::Format::kGguf;
  result.version = file.headers().front().version;
  result.alignment = file.headers().front().alignment;
  for (const InputFile& shard : file.files()) result.files.push_back(describe(shard));
  for (size_t i = 0; i < result.files.size(); ++i) result.files[i].data_offset = file.headers()[i].data_offset;
  result.metadata = file.metadata();
  for (size_t i = 0; i < result.files.size(); ++i) add_tensors(file.headers()[i], i, result);
  return result;
}

// A folder without a checkpoint.
void refuse_other_folder(const fs::path& path) {
  const ModelFolder folder(path);
  if (folder.has("config.json") || !first_name(folder, ".safetensors").empty()) return;
  try {
    gguf::refuse_folder(folder);
  } catch (Error& e) {
    throw e.file(path.string());
  }
}

Inspection inspect_safetensors_file(const fs::path& path) {
  const InputFile file(path);
  refuse_stand_in(file);
  const safetensors::Header header = safetensors::read_header(file);
  Inspection result;
  result.format = Inspection::Format::kSafetensors;
  result.files.push_back(describe(file));
  for (const TensorInfo& tensor : header.tensors) add_tensor(tensor, 0, result);
  add_safetensors_metadata(header.metadata, result);
  set_data_offsets(result);
  return result;
}

// The config fields that say what a checkpoint is; absent ones are left out.
CheckpointModel describe_model(const fs::path& folder) {
  CheckpointModel model;
  try {
    const ModelConfig config = load_config(folder);
    if (const auto names = config.find_string_array("architectures"); names && !names->empty()) {
      model.config.emplace_back("architectures", names->front());
    }
    constexpr std::array kFields = {"model_type", "torch_dtype", "dtype", "quantization_config.quant_method", "quantization_config.fmt"};
    for (const char* field : kFields) {
      if (const auto value = config.find_string(field)) model.config.emplace_back(field, *value);
    }
    const std::unique_ptr<ModelSource> source = open_model(folder);
    for (const LogicalTensor& tensor : source->tensors()) {
      add_to_totals(name_of(tensor.source_type), tensor.shape.n_elements(), tensor.source_bytes, model.encodings);
    }
    sort_totals(model.encodings);
    model.notes.assign(source->notes().begin(), source->notes().end());
    model.gguf_arch = source->metadata().get_string("general.architecture");
  } catch (const Error& e) {
    model.problem = e.message();
  }
  return model;
}

Inspection inspect_checkpoint(const fs::path& folder) {
  const safetensors::Checkpoint checkpoint(folder);
  Inspection result;
  result.format = Inspection::Format::kSafetensors;
  for (const InputFile& file : checkpoint.files()) result.files.push_back(describe(file));
  for (const safetensors::StoredTensor& tensor : checkpoint.tensors()) add_tensor(tensor, tensor.file_index, result);
  add_safetensors_metadata(checkpoint.metadata(), result);
  set_data_offsets(result);
  result.model = describe_model(folder);
  return result;
}

}  // namespace

uint64_t total_bytes(std::span<const TypeTotal> totals) {
  uint64_t sum = 0;
  for (const TypeTotal& total : totals) sum += total.size_bytes;
  return sum;
}

int64_t total_elements(std::span<const TypeTotal> totals) {
  int64_t sum = 0;
  for (const TypeTotal& total : totals) sum = checked_add(sum, total.n_elements, "number of elements");
  return sum;
}

Inspection inspect(const fs::path& path) {
  if (fs::is_directory(path)) refuse_other_folder(path);
  Inspection result = fs::is_directory(path)               ? inspect_checkpoint(path)
                      : path.extension() == ".safetensors" ? inspect_safetensors_file(path)
                                                           : inspect_gguf(path);
  for (const InspectedTensor& tensor : result.tensors) {
    add_to_totals(tensor.type, tensor.shape.n_elements(), tensor.size_bytes, result.types);
  }
  sort_totals(result.types);
  return result;
}

}  // namespace quern
