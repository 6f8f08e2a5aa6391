#include <algorithm>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "formats/gguf/metadata_text.h"
#include "verify/intact/inspection.h"

namespace quern {
namespace {

using json = nlohmann::ordered_json;

constexpr size_t kJsonElements = 16;  // of an array, in the JSON

json value_json(const MetaValue& value) {
  return std::visit(
      []<typename T>(const T& v) -> json {
        if constexpr (kIsArray<T>) {
          json first = json::array();
          for (size_t i = 0; i < std::min(v.size(), kJsonElements); ++i) first.push_back(static_cast<typename T::value_type>(v[i]));
          return {{"count", v.size()}, {"first", first}};
        } else {
          return v;
        }
      },
      value);
}

json files_json(const Inspection& found) {
  json files = json::array();
  for (const InspectedFile& file : found.files) {
    files.push_back(
        {{"name", file.name}, {"size_bytes", file.size_bytes}, {"data_offset", file.data_offset}, {"n_tensors", file.n_tensors}});
  }
  return files;
}

json totals_json(std::span<const TypeTotal> totals, const char* count_name) {
  json types = json::array();
  for (const TypeTotal& total : totals) {
    types.push_back(
        {{"type", total.type}, {"n_tensors", total.n_tensors}, {count_name, total.n_elements}, {"size_bytes", total.size_bytes}});
  }
  return types;
}

json model_json(const CheckpointModel& model) {
  json config = json::object();
  for (const auto& [field, value] : model.config) config[field] = value;
  if (model.gguf_arch.empty()) return {{"config", config}, {"gguf_architecture", nullptr}, {"problem", model.problem}};
  return {{"config", config},
          {"gguf_architecture", model.gguf_arch},
          {"n_weights", total_elements(model.encodings)},
          {"encodings", totals_json(model.encodings, "n_weights")},
          {"notes", model.notes}};
}

json metadata_json(const Metadata& metadata) {
  json entries = json::array();
  for (const auto& [key, value] : metadata.entries()) {
    entries.push_back({{"key", key}, {"type", type_name(value)}, {"value", value_json(value)}});
  }
  return entries;
}

json tensors_json(const Inspection& found) {
  json tensors = json::array();
  for (const InspectedTensor& tensor : found.tensors) {
    tensors.push_back({{"name", tensor.name},
                       {"type", tensor.type},
                       {"shape", std::vector<int64_t>(tensor.shape.dims().begin(), tensor.shape.dims().end())},
                       {"size_bytes", tensor.size_bytes},
                       {"offset", tensor.file_offset},
                       {"file", tensor.file}});
  }
  return tensors;
}

}  // namespace

double bits_per_element(uint64_t size_bytes, int64_t n_elements) {
  return n_elements == 0 ? 0.0 : 8.0 * static_cast<double>(size_bytes) / static_cast<double>(n_elements);
}

std::string inspection_to_json(const Inspection& found, const std::string& path, bool with_tensors) {
  const bool is_gguf = found.format == Inspection::Format::kGguf;
  json out{{"schema", "quern.inspect/1"}, {"format", is_gguf ? "gguf" : "safetensors"}, {"path", path}};
  if (is_gguf) {
    out["version"] = found.version;
    out["alignment"] = found.alignment;
  }
  out["files"] = files_json(found);
  if (found.model) out["model"] = model_json(*found.model);
  out["metadata"] = metadata_json(found.metadata);
  out["n_tensors"] = found.tensors.size();
  out["n_elements"] = total_elements(found.types);
  out["tensor_bytes"] = total_bytes(found.types);
  if (is_gguf) out["bits_per_weight"] = bits_per_element(total_bytes(found.types), total_elements(found.types));
  out["types"] = totals_json(found.types, "n_elements");
  if (with_tensors) out["tensors"] = tensors_json(found);
  // Text of foreign files may be no UTF-8; it is replaced, because JSON cannot carry it.
  return out.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace quern
