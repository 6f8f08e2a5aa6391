#include "convert/plan/plan_json.h"

#include <nlohmann/json.hpp>

#include "convert/plan/layout.h"
#include "convert/plan/plan_checks.h"
#include "convert/record/metadata_json.h"
#include "formats/base/checked.h"
#include "formats/base/file.h"
#include "formats/base/json_tree.h"

// The plan as JSON; docs/formats/plan.md describes every field.

namespace quern {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "quern.plan/1";
constexpr uint64_t kMaxPlanBytes = uint64_t{1} << 30;
constexpr int kMaxDepth = 8;
constexpr int64_t kMaxSlices = 1 << 16;  // figures are kept of each

DType dtype_from_json(const json& value, const Container& container) {
  const std::string name = value.get<std::string>();
  const std::optional<DType> type = find_dtype_by_name(name);
  if (!type || !container.holds(*type)) throw Error(ErrorKind::kFormat, "unknown type '" + printable(name) + "'");
  return *type;
}

Effort effort_from_json(const json& value) {
  const std::optional<Effort> effort = find_effort(value.get<std::string>());
  if (!effort) throw Error(ErrorKind::kFormat, "unknown effort '" + printable(value.get<std::string>()) + "'");
  return *effort;
}

json to_json(const PlannedSource& source) {
  return {{"name", source.name}, {"size_bytes", source.size_bytes}, {"mtime_ns", source.mtime_ns}, {"fingerprint", source.fingerprint}};
}

PlannedSource source_from_json(const json& value) {
  return {value.at("name").get<std::string>(), integer_from<uint64_t>(value.at("size_bytes")), integer_from<int64_t>(value.at("mtime_ns")),
          value.at("fingerprint").get<std::string>()};
}

json to_json(const PlannedTensor& tensor) {
  const auto dims = tensor.shape.dims();
  return {{"name", tensor.name},
          {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
          {"source_index", tensor.source_index},
          {"n_slices", tensor.n_slices},
          {"source_bytes", tensor.source_bytes},
          {"chunk_rows", tensor.chunk_rows},
          {"integer", tensor.integer}};
}

json to_json(const ImatrixRecord& record) {
  return {{"file", record.file},
          {"sha256", record.sha256},
          {"dataset", record.dataset},
          {"entries", record.n_entries},
          {"chunks", record.n_chunks}};
}

ImatrixRecord imatrix_from_json(const json& value) {
  return {value.at("file").get<std::string>(), value.at("sha256").get<std::string>(), value.at("dataset").get<std::string>(),
          integer_from<int64_t>(value.at("entries")), integer_from<int64_t>(value.at("chunks"))};
}

json to_json(const StatisticsRecord& record) {
  return {{"sha256", record.sha256}, {"model", record.model}, {"text", record.text},      {"text_sha256", record.text_sha256},
          {"mode", record.mode},     {"ctx", record.ctx},     {"tokens", record.n_tokens}};
}

StatisticsRecord statistics_from_json(const json& value) {
  StatisticsRecord record;
  record.sha256 = value.at("sha256").get<std::string>();
  record.model = value.at("model").get<std::string>();
  record.text = value.at("text").get<std::string>();
  record.text_sha256 = value.at("text_sha256").get<std::string>();
  record.mode = value.at("mode").get<std::string>();
  record.ctx = integer_from<int64_t>(value.at("ctx"));
  record.n_tokens = integer_from<int64_t>(value.at("tokens"));
  return record;
}

PlannedTensor tensor_from_json(const json& value) {
  PlannedTensor tensor;
  tensor.name = value.at("name").get<std::string>();
  tensor.shape = Shape(integers_from<int64_t>(value.at("shape")));
  tensor.source_index = integer_from<size_t>(value.at("source_index"));
  tensor.n_slices = integer_from<int64_t>(value.at("n_slices"));
  tensor.source_bytes = integer_from<uint64_t>(value.at("source_bytes"));
  tensor.chunk_rows = integer_from<int64_t>(value.at("chunk_rows"));
  tensor.integer = value.at("integer").get<bool>();
  const bool sliced_evenly = tensor.n_slices >= 1 && tensor.n_slices <= kMaxSlices && tensor.shape.n_rows() % tensor.n_slices == 0;
  if (tensor.chunk_rows < 1 || tensor.shape.n_elements() < 1 || !sliced_evenly) {
    throw Error(ErrorKind::kFormat, "impossible shape, slices or chunk_rows").tensor(tensor.name);
  }
  return tensor;
}

// The places of the planes of a tensor: one number, or a list of several.
json offsets_to_json(const std::vector<PlacedPlane>& planes) {
  if (planes.size() == 1) return planes.front().file_offset;
  json offsets = json::array();
  for (const PlacedPlane& plane : planes) offsets.push_back(plane.file_offset);
  return offsets;
}

std::vector<PlacedPlane> planes_from_json(const json& offsets, const std::vector<uint64_t>& sizes) {
  const std::vector<uint64_t> places =
      offsets.is_array() ? integers_from<uint64_t>(offsets) : std::vector<uint64_t>{integer_from<uint64_t>(offsets)};
  if (places.size() != sizes.size()) {
    throw Error(ErrorKind::kFormat, std::to_string(places.size()) + " offsets, expected " + std::to_string(sizes.size()));
  }
  std::vector<PlacedPlane> planes;
  for (size_t p = 0; p < sizes.size(); ++p) planes.push_back({places[p], sizes[p]});
  return planes;
}

json to_json(const PlannedOutput& output) {
  json files = json::array(), tensors = json::array();
  for (const PlannedFile& file : output.files) {
    files.push_back({{"name", file.name},
                     {"size_bytes", file.size_bytes},
                     {"data_offset", file.data_offset},
                     {"first_tensor", file.first_tensor},
                     {"n_tensors", file.n_tensors}});
  }
  for (const Placement& placement : output.tensors) {
    tensors.push_back({{"type", std::string(name_of(placement.type))},
                       {"copied", placement.copied},
                       {"file", placement.file},
                       {"offset", offsets_to_json(placement.planes)},
                       {"size_bytes", placement.size_bytes}});
  }
  json out = {{"mix", output.mix},       {"lossless", output.lossless},
              {"label", output.label},   {"stem", output.stem},
              {"folder", output.folder}, {"files", files},
              {"tensors", tensors},      {"metadata", metadata_to_json(output.metadata)}};
  if (output.container != &default_container()) out["container"] = std::string(output.container->name());
  for (const SideFile& file : output.side_files) {
    out["side_files"].push_back({{"name", file.name}, {"bytes", string_to_json(file.bytes)}});
  }
  return out;
}

const Container* container_from_json(const json& value) {
  if (!value.contains("container")) return &default_container();
  const std::string name = value.at("container").get<std::string>();
  const Container* container = find_container(name);
  if (container == nullptr) throw Error(ErrorKind::kFormat, "unknown container '" + printable(name) + "'");
  return container;
}

std::string file_name_from_json(const json& value) {
  const std::string name = value.get<std::string>();
  if (name.empty() || name.find('/') != std::string::npos)
    throw Error(ErrorKind::kFormat, "file name '" + printable(name) + "' is not a plain name");
  return name;
}

PlannedFile file_from_json(const json& value) {
  PlannedFile file;
  file.name = file_name_from_json(value.at("name"));
  file.size_bytes = integer_from<uint64_t>(value.at("size_bytes"));
  file.data_offset = integer_from<uint64_t>(value.at("data_offset"));
  file.first_tensor = integer_from<size_t>(value.at("first_tensor"));
  file.n_tensors = integer_from<size_t>(value.at("n_tensors"));
  return file;
}

PlannedOutput output_from_json(const json& value, const std::vector<PlannedTensor>& tensors) {
  PlannedOutput output;
  output.container = container_from_json(value);
  output.mix = value.at("mix").get<std::string>();
  output.lossless = value.at("lossless").get<bool>();
  output.label = value.at("label").get<std::string>();
  output.stem = value.at("stem").get<std::string>();
  output.folder = value.at("folder").get<std::string>();
  if (output.folder == "." || output.folder == ".." || output.folder.find('/') != std::string::npos)
    throw Error(ErrorKind::kFormat, "folder '" + printable(output.folder) + "' is not a plain name");
  output.metadata = metadata_from_json(value.at("metadata"));
  for (const json& file : value.at("files")) output.files.push_back(file_from_json(file));
  for (const json& file : value.value("side_files", json::array())) {
    output.side_files.push_back({file_name_from_json(file.at("name")), string_from_json(file.at("bytes"))});
  }
  for (const json& tensor : value.at("tensors")) {
    Placement placement;
    placement.type = dtype_from_json(tensor.at("type"), *output.container);
    placement.copied = tensor.at("copied").get<bool>();
    placement.file = integer_from<uint32_t>(tensor.at("file"));
    placement.size_bytes = integer_from<uint64_t>(tensor.at("size_bytes"));
    output.tensor_bytes = checked_add(output.tensor_bytes, placement.size_bytes, "size of an output");
    output.tensors.push_back(placement);
  }
  if (output.tensors.size() != tensors.size())
    throw Error(ErrorKind::kFormat, "output '" + printable(output.mix) + "' has another number of tensors");
  for (size_t t = 0; t < tensors.size(); ++t) {
    Placement& placement = output.tensors[t];
    if (placement.size_bytes != tensor_size_bytes(placement.type, tensors[t].shape) || placement.file >= output.files.size()) {
      throw Error(ErrorKind::kFormat, "size or file does not match the shape").tensor(tensors[t].name);
    }
    placement.planes =
        planes_from_json(value.at("tensors").at(t).at("offset"), plane_sizes(*output.container, placement.type, tensors[t].shape));
  }
  return output;
}

// The order in which an output is written must be its files' order, without gaps: what the writer relies on.
void check_files_cover_tensors(const PlannedOutput& output) {
  if (output.files.empty() || output.files.size() > output.container->max_files()) {
    throw Error(ErrorKind::kFormat, "output '" + printable(output.mix) + "' has an impossible number of files");
  }
  size_t next = 0;
  for (const PlannedFile& file : output.files) {
    if ((file.first_tensor != next && file.n_tensors != 0) || file.n_tensors > output.tensors.size() - next) {
      throw Error(ErrorKind::kFormat, "files do not hold the tensors in order").file(file.name);
    }
    next += file.n_tensors;
  }
  if (next != output.tensors.size()) throw Error(ErrorKind::kFormat, "output '" + printable(output.mix) + "' leaves tensors out");
}

// Sums that the run relies on fit their types: bytes that are read and written, weights, and with them rows and chunks.
void check_totals(const Plan& plan) {
  uint64_t bytes = 0;
  int64_t n_weights = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    bytes = checked_add(bytes, tensor.source_bytes, "bytes of the source");
    n_weights = checked_add(n_weights, tensor.shape.n_elements(), "number of weights");
  }
  for (const PlannedOutput& output : plan.outputs) {
    bytes = checked_add(bytes, output.tensor_bytes, "bytes of the outputs");
  }
}

Plan parse(const json& root) {
  if (root.at("schema") != kSchema) {
    throw Error(ErrorKind::kFormat, "schema is '" + printable(root.at("schema").get<std::string>()) + "', expected '" + kSchema + "'");
  }
  Plan plan;
  plan.quern_version = root.at("quern_version").get<std::string>();
  plan.model = root.at("model").get<std::string>();
  plan.mtp = root.at("mtp").get<bool>();
  plan.folder = root.at("folder").get<std::string>();
  plan.force = root.at("force").get<bool>();
  plan.lists = root.at("lists").get<bool>();
  plan.effort = effort_from_json(root.at("effort"));
  plan.memory_bytes = integer_from<uint64_t>(root.at("memory_bytes"));
  plan.base_bytes = integer_from<uint64_t>(root.at("base_bytes"));
  plan.chunk_bytes = integer_from<uint64_t>(root.at("chunk_bytes"));
  plan.notes = root.at("notes").get<std::vector<std::string>>();
  if (root.contains("warnings")) plan.warnings = root.at("warnings").get<std::vector<std::string>>();
  if (root.contains("imatrix")) {
    plan.imatrix = imatrix_from_json(root.at("imatrix"));
    plan.imatrix_path = root.at("imatrix").at("path").get<std::string>();
  }
  if (root.contains("statistics")) {
    plan.statistics = statistics_from_json(root.at("statistics"));
    plan.statistics_path = root.at("statistics").at("path").get<std::string>();
  }
  for (const json& source : root.at("sources")) plan.sources.push_back(source_from_json(source));
  for (const json& tensor : root.at("tensors")) plan.tensors.push_back(tensor_from_json(tensor));
  for (const json& output : root.at("outputs")) {
    plan.outputs.push_back(output_from_json(output, plan.tensors));
    check_files_cover_tensors(plan.outputs.back());
  }
  if (plan.outputs.empty()) throw Error(ErrorKind::kFormat, "there are no outputs");
  plan.metadata = metadata_from_json(root.at("metadata"));
  check_totals(plan);
  check_layout(plan);
  return plan;
}

}  // namespace

std::string plan_to_json(const Plan& plan) {
  json root = {{"schema", kSchema},
               {"quern_version", plan.quern_version},
               {"model", plan.model.string()},
               {"mtp", plan.mtp},
               {"folder", plan.folder.string()},
               {"force", plan.force},
               {"lists", plan.lists},
               {"effort", name_of(plan.effort)},
               {"memory_bytes", plan.memory_bytes},
               {"base_bytes", plan.base_bytes},
               {"chunk_bytes", plan.chunk_bytes},
               {"notes", plan.notes}};
  if (!plan.warnings.empty()) root["warnings"] = plan.warnings;
  if (plan.imatrix) {
    root["imatrix"] = to_json(*plan.imatrix);
    root["imatrix"]["path"] = plan.imatrix_path.string();
  }
  if (plan.statistics) {
    root["statistics"] = to_json(*plan.statistics);
    root["statistics"]["path"] = plan.statistics_path.string();
  }
  root["sources"] = json::array();
  for (const PlannedSource& source : plan.sources) root["sources"].push_back(to_json(source));
  root["tensors"] = json::array();
  for (const PlannedTensor& tensor : plan.tensors) root["tensors"].push_back(to_json(tensor));
  root["outputs"] = json::array();
  for (const PlannedOutput& output : plan.outputs) root["outputs"].push_back(to_json(output));
  root["metadata"] = metadata_to_json(plan.metadata);
  return root.dump(1) + "\n";
}

Plan plan_from_json(std::string_view text) {
  try {
    return parse(parse_json_tree(text, kMaxDepth));
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("not a plan: ") + printable(error.what()));
  }
}

Plan read_plan(const std::filesystem::path& file) {
  try {
    return plan_from_json(read_text_file(file, kMaxPlanBytes));
  } catch (Error& error) {
    error.file(file.string());
    throw;
  }
}

}  // namespace quern
