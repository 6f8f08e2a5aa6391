#include "convert/record/build_record_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "convert/record/metadata_json.h"
#include "formats/base/checked.h"
#include "formats/base/json_tree.h"

namespace quern {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kSchema = "quern.tensors/1";
constexpr int kMaxDepth = 16;
constexpr size_t kHexDigits = 64;

void put_error(ordered_json& entry, const ErrorRecord& error) {
  entry["exact"] = error.exact;
  entry["squared_error"] = error.squared_error;
  entry["relative_error"] = error.relative_error;
  if (error.n_cut > 0) entry["cut"] = {{"weights", error.n_cut}, {"largest", error.largest_cut}};
}

ErrorRecord error_from_json(const json& entry) {
  ErrorRecord error{entry.at("exact").get<bool>(), entry.at("squared_error").get<double>(), entry.at("relative_error").get<double>()};
  if (!entry.contains("cut")) return error;
  error.n_cut = integer_from<int64_t>(entry.at("cut").at("weights"));
  error.largest_cut = entry.at("cut").at("largest").get<double>();
  return error;
}

std::string sum_from_json(const json& value) {
  const std::string text = value.get<std::string>();
  const bool hex = std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (text.size() != kHexDigits || !hex) throw Error(ErrorKind::kFormat, "'" + printable(text, 80) + "' is not a SHA-256");
  return text;
}

ordered_json to_json(const FileRecord& file) {
  return {{"name", file.name}, {"size_bytes", file.size_bytes}, {"sha256", file.sha256}, {"pieces_sha256", file.pieces_sha256}};
}

// At most one folder deep, so that no name leads anywhere else.
void check_name(const std::string& name) {
  const size_t slash = name.find('/');
  const std::string folder = slash == std::string::npos ? "" : name.substr(0, slash);
  const std::string file = slash == std::string::npos ? name : name.substr(slash + 1);
  const auto special = [](const std::string& part) { return part.empty() || part == "." || part == ".."; };
  const bool control = std::ranges::any_of(name, [](char c) { return static_cast<unsigned char>(c) < 0x20; });
  if (special(file) || file.find('/') != std::string::npos || (slash != std::string::npos && special(folder)) || control) {
    throw Error(ErrorKind::kFormat, "'" + printable(name) + "' is not the name of a file of the build");
  }
}

FileRecord file_from_json(const json& entry) {
  FileRecord file;
  file.name = entry.at("name").get<std::string>();
  check_name(file.name);
  file.size_bytes = integer_from<uint64_t>(entry.at("size_bytes"));
  file.sha256 = sum_from_json(entry.at("sha256"));
  for (const json& sum : entry.at("pieces_sha256")) file.pieces_sha256.push_back(sum_from_json(sum));
  if (file.pieces_sha256.size() != file.size_bytes / kPieceBytes + (file.size_bytes % kPieceBytes != 0 ? 1 : 0)) {
    throw Error(ErrorKind::kFormat,
                "has " + std::to_string(file.pieces_sha256.size()) + " sums of pieces for " + std::to_string(file.size_bytes) + " bytes")
        .file(file.name);
  }
  return file;
}

ordered_json to_json(const PlaneRecord& plane) {
  ordered_json entry = {{"offset", plane.offset}, {"size_bytes", plane.size_bytes}, {"sha256", plane.sha256}};
  if (!plane.slices_sha256.empty()) entry["slices_sha256"] = plane.slices_sha256;
  return entry;
}

PlaneRecord plane_from_json(const json& entry) {
  PlaneRecord plane;
  plane.offset = integer_from<uint64_t>(entry.at("offset"));
  plane.size_bytes = integer_from<uint64_t>(entry.at("size_bytes"));
  plane.sha256 = sum_from_json(entry.at("sha256"));
  for (const json& sum : entry.value("slices_sha256", json::array())) plane.slices_sha256.push_back(sum_from_json(sum));
  return plane;
}

ordered_json to_json(const TensorRecord& tensor, const std::vector<FileRecord>& files) {
  const auto dims = tensor.shape.dims();
  ordered_json entry = {{"name", tensor.name},
                        {"type", std::string(name_of(tensor.type))},
                        {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
                        {"file", files[tensor.file].name},
                        {"offset", tensor.offset},
                        {"size_bytes", tensor.size_bytes},
                        {"sha256", tensor.sha256}};
  if (tensor.error) put_error(entry, *tensor.error);
  for (const SliceRecord& slice : tensor.slices) {
    ordered_json slice_entry = {{"sha256", slice.sha256}};
    if (tensor.error) put_error(slice_entry, slice.error);
    entry["slices"].push_back(std::move(slice_entry));
  }
  for (const PlaneRecord& plane : tensor.planes) entry["planes"].push_back(to_json(plane));
  return entry;
}

// Sizes follow from type and shape, and every plane lies in its file and has as many slices as the tensor.
void check_planes(const TensorRecord& tensor, const Container& container, const FileRecord& file) {
  const std::vector<PlaneRecord> planes = planes_of(tensor);
  const std::vector<uint64_t> sizes = plane_sizes(container, tensor.type, tensor.shape);
  bool fit = planes.size() == sizes.size();
  for (size_t p = 0; fit && p < planes.size(); ++p) {
    const uint64_t end = checked_add(planes[p].offset, planes[p].size_bytes, "end of the tensor");
    fit = planes[p].size_bytes == sizes[p] && end <= file.size_bytes && planes[p].slices_sha256.size() == tensor.slices.size();
  }
  if (!fit) throw Error(ErrorKind::kFormat, "size, shape and place in the file do not fit").tensor(tensor.name);
}

TensorRecord tensor_from_json(const json& entry, const std::vector<FileRecord>& files, const Container& container) {
  TensorRecord tensor;
  tensor.name = entry.at("name").get<std::string>();
  const std::optional<DType> type = find_dtype_by_name(entry.at("type").get<std::string>());
  if (!type) throw Error(ErrorKind::kFormat, "unknown type").tensor(tensor.name);
  tensor.type = *type;
  tensor.shape = Shape(integers_from<int64_t>(entry.at("shape")));
  const auto file = std::ranges::find(files, entry.at("file").get<std::string>(), &FileRecord::name);
  if (file == files.end()) throw Error(ErrorKind::kFormat, "is in a file that the record does not list").tensor(tensor.name);
  tensor.file = static_cast<size_t>(file - files.begin());
  tensor.offset = integer_from<uint64_t>(entry.at("offset"));
  tensor.size_bytes = integer_from<uint64_t>(entry.at("size_bytes"));
  tensor.sha256 = sum_from_json(entry.at("sha256"));
  if (entry.contains("exact")) tensor.error = error_from_json(entry);
  for (const json& plane : entry.value("planes", json::array())) tensor.planes.push_back(plane_from_json(plane));
  for (const json& slice : entry.value("slices", json::array())) {
    tensor.slices.push_back({sum_from_json(slice.at("sha256")), tensor.error ? error_from_json(slice) : ErrorRecord{}});
  }
  check_planes(tensor, container, *file);
  if (!entry.contains("slices")) return tensor;
  if (tensor.slices.empty() || tensor.shape.n_rows() % static_cast<int64_t>(tensor.slices.size()) != 0) {
    throw Error(ErrorKind::kFormat, "its rows do not divide into " + std::to_string(tensor.slices.size()) + " slices").tensor(tensor.name);
  }
  return tensor;
}

ordered_json head_of(const BuildRecord& record) {
  ordered_json head = {{"schema", kSchema},     {"quern_version", record.quern_version}, {"recipe", record.recipe},
                       {"label", record.label}, {"lossless", record.lossless},           {"mtp", record.mtp}};
  if (record.container != &default_container()) head["container"] = std::string(record.container->name());
  if (record.error) put_error(head, *record.error);
  head["settings"] = metadata_to_json(record.settings);
  head["keys"] = ordered_json::array();
  for (const auto& [key, sha256] : record.keys) head["keys"].push_back({{"key", key}, {"sha256", sha256}});
  head["files"] = ordered_json::array();
  for (const FileRecord& file : record.files) head["files"].push_back(to_json(file));
  return head;
}

BuildRecord record_from_tree(const json& root) {
  if (root.at("schema") != kSchema) throw Error(ErrorKind::kFormat, "the schema of the build is not " + std::string(kSchema));
  BuildRecord record;
  if (root.contains("container")) {
    const std::string name = root.at("container").get<std::string>();
    record.container = find_container(name);
    if (record.container == nullptr) throw Error(ErrorKind::kFormat, "unknown container '" + printable(name) + "'");
  }
  record.quern_version = root.at("quern_version").get<std::string>();
  record.recipe = root.at("recipe").get<std::string>();
  record.label = root.at("label").get<std::string>();
  record.lossless = root.at("lossless").get<bool>();
  record.mtp = root.at("mtp").get<bool>();
  if (root.contains("exact")) record.error = error_from_json(root);
  record.settings = metadata_from_json(root.at("settings"));
  for (const json& key : root.at("keys")) record.keys.emplace_back(key.at("key").get<std::string>(), sum_from_json(key.at("sha256")));
  for (const json& file : root.at("files")) record.files.push_back(file_from_json(file));
  if (record.files.empty()) throw Error(ErrorKind::kFormat, "the build has no files");
  for (const json& tensor : root.at("tensors")) record.tensors.push_back(tensor_from_json(tensor, record.files, *record.container));
  return record;
}

}  // namespace

std::string build_record_to_json(const BuildRecord& record) {
  std::string text = head_of(record).dump();
  text.pop_back();  // the list goes inside
  text += ",\"tensors\":[\n";
  for (size_t t = 0; t < record.tensors.size(); ++t) {
    text += to_json(record.tensors[t], record.files).dump();
    text += t + 1 < record.tensors.size() ? ",\n" : "\n";
  }
  return text + "]}\n";
}

BuildRecord build_record_from_tree(const json& root) {
  try {
    return record_from_tree(root);
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kFormat, std::string("not the record of a build: ") + printable(error.what()));
  }
}

BuildRecord build_record_from_json(std::string_view text) { return build_record_from_tree(parse_json_tree(text, kMaxDepth)); }

}  // namespace quern
