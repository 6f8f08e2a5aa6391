#include "convert/fill/lists.h"

#include <cmath>
#include <sstream>

#include "convert/plan/layout.h"
#include "formats/base/file.h"
#include "formats/base/sha256.h"
#include "formats/gguf/gguf_edit.h"

namespace quern {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxSumsBytes = 16u << 20;
constexpr size_t kHexDigits = 64;

ErrorRecord error_of(const Figures& figures, size_t output) {
  const Figure& figure = figures.outputs[output];
  return {figure.exact, figure.squared_error, figures.energy > 0 ? std::sqrt(figure.squared_error / figures.energy) : 0};
}

TensorRecord tensor_record(const Plan& plan, size_t index, size_t t, const TensorSums& sums, const TensorFigures& figures) {
  const PlannedTensor& tensor = plan.tensors[t];
  const Placement& placement = plan.outputs[index].tensors[t];
  TensorRecord record;
  record.name = tensor.name;
  record.type = placement.type;
  record.shape = tensor.shape;
  record.file = placement.file;
  record.offset = placement.file_offset;
  record.size_bytes = placement.size_bytes;
  record.sha256 = sums.sha256;
  if (!tensor.integer) record.error = error_of(figures, index);
  for (size_t s = 0; s < sums.slices.size(); ++s) {
    record.slices.push_back({sums.slices[s], tensor.integer ? ErrorRecord{} : error_of(figures.slices[s], index)});
  }
  return record;
}

ErrorRecord error_of_all(const std::vector<TensorFigures>& figures, size_t output) {
  Figures sum;
  sum.outputs.resize(output + 1);
  for (const TensorFigures& tensor : figures) {
    sum.energy += tensor.energy;
    sum.outputs[output].squared_error += tensor.outputs[output].squared_error;
    sum.outputs[output].exact = sum.outputs[output].exact && tensor.outputs[output].exact;
  }
  return error_of(sum, output);
}

// "HASH  NAME" lines; anything else is not ours and is dropped.
std::map<std::string, std::string> read_sums(const fs::path& path) {
  std::map<std::string, std::string> sums;
  if (!fs::exists(path)) return sums;
  std::istringstream in(read_text_file(path, kMaxSumsBytes));
  for (std::string line; std::getline(in, line);) {
    if (line.size() < kHexDigits + 3 || line[kHexDigits] != ' ') continue;
    const std::string name = line.substr(kHexDigits + 2);
    if (fs::exists(path.parent_path() / name)) sums[name] = line.substr(0, kHexDigits);
  }
  return sums;
}

}  // namespace

BuildRecord build_record(const Plan& plan, size_t index, const FinishedOutput& finished, const std::vector<TensorFigures>& figures) {
  const PlannedOutput& output = plan.outputs[index];
  BuildRecord record;
  record.quern_version = plan.quern_version;
  record.recipe = output.mix;
  record.label = output.label;
  record.lossless = output.lossless;
  record.mtp = plan.mtp;
  record.error = error_of_all(figures, index);
  const Metadata metadata = file_metadata(plan, output, 0);
  for (const auto& [key, value] : metadata.entries()) {
    if (key.starts_with("quern.") && key != gguf::kPaddingKey) record.settings.set(key, value);
  }
  record.keys = metadata_sums(metadata);
  for (size_t f = 0; f < output.files.size(); ++f) {
    const FileSums& sums = finished.files[f];
    record.files.push_back({relative_name(output, f), output.files[f].size_bytes, sums.sha256, sums.pieces_sha256});
  }
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    record.tensors.push_back(tensor_record(plan, index, t, finished.tensors[t], figures[t]));
  }
  return record;
}

void update_sums(const fs::path& folder, const std::map<std::string, std::string>& sha256_by_name) {
  std::map<std::string, std::string> sums = read_sums(folder / "SHA256SUMS");
  for (const auto& [name, sha256] : sha256_by_name) sums[name] = sha256;
  std::string text;
  for (const auto& [name, sha256] : sums) text += sha256 + "  " + name + "\n";
  write_file_atomically(folder / "SHA256SUMS", text, OutputFile::Overwrite::kAllow);
}

void write_lists(const Plan& plan, const std::vector<FinishedOutput>& finished, const std::vector<TensorFigures>& figures) {
  std::map<std::string, std::string> sums;
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const PlannedOutput& output = plan.outputs[i];
    const std::string list = build_record_to_json(build_record(plan, i, finished[i], figures));
    const std::string name = output.stem + ".tensors.json";
    write_file_atomically(plan.folder / name, list, OutputFile::Overwrite::kAllow);
    sums[name] = sha256_hex(list);
    for (size_t f = 0; f < output.files.size(); ++f) sums[relative_name(output, f)] = finished[i].files[f].sha256;
  }
  update_sums(plan.folder, sums);
}

}  // namespace quern
