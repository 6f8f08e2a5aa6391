#include "convert/fill/lists.h"

#include <cmath>
#include <sstream>

#include "convert/fill/output_writer.h"
#include "convert/plan/layout.h"
#include "convert/record/build_record_json.h"
#include "formats/base/file.h"
#include "formats/base/sha256.h"

// Two lists tell a later reader what was made. The record of a build has everything that is needed to name any damage: a sum of every file,
// of every MiB of it, of every tensor and expert, and how near each is to the source. SHA256SUMS has what `sha256sum -c` reads. It is
// shared by all builds of a folder, so a run replaces its own lines, keeps those of files that are still there and drops the rest.

namespace quern {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxSumsBytes = 16u << 20;
constexpr size_t kHexDigits = 64;

ErrorRecord error_of(const Figures& figures, size_t output) {
  const Figure& figure = figures.outputs[output];
  return {figure.exact, figure.squared_error, figures.energy > 0 ? std::sqrt(figure.squared_error / figures.energy) : 0, figure.cut.n,
          figure.cut.largest};
}

TensorRecord tensor_record(const Plan& plan, size_t index, size_t t, const TensorSums& sums, const TensorFigures& figures) {
  const PlannedTensor& tensor = plan.tensors[t];
  const Placement& placement = plan.outputs[index].tensors[t];
  TensorRecord record;
  record.name = tensor.name;
  record.type = placement.type;
  record.shape = tensor.shape;
  record.file = placement.file;
  record.offset = placement.planes.front().file_offset;
  record.size_bytes = placement.size_bytes;
  record.sha256 = sums.planes.front().sha256;
  if (!tensor.integer) record.error = error_of(figures, index);
  const std::vector<std::string>& slices = sums.planes.front().slices;
  for (size_t s = 0; s < slices.size(); ++s) {
    record.slices.push_back({slices[s], tensor.integer ? ErrorRecord{} : error_of(figures.slices[s], index)});
  }
  for (size_t p = 1; p < placement.planes.size(); ++p) {
    const PlacedPlane& plane = placement.planes[p];
    record.planes.push_back({plane.file_offset, plane.size_bytes, sums.planes[p].sha256, sums.planes[p].slices});
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
    sum.outputs[output].cut.add(tensor.outputs[output].cut);
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

FileRecord side_file_record(const std::string& name, std::string_view bytes) {
  FileHasher hasher;
  hasher.update(std::as_bytes(std::span(bytes)));
  FileSums sums = hasher.finish();
  return {name, bytes.size(), std::move(sums.sha256), std::move(sums.pieces_sha256)};
}

}  // namespace

BuildRecord build_record(const Plan& plan, size_t index, const FinishedOutput& finished, const std::vector<TensorFigures>& figures) {
  const PlannedOutput& output = plan.outputs[index];
  BuildRecord record;
  record.container = output.container;
  record.quern_version = plan.quern_version;
  record.recipe = output.mix;
  record.label = output.label;
  record.lossless = output.lossless;
  record.mtp = plan.mtp;
  record.error = error_of_all(figures, index);
  const Metadata metadata = metadata_of(plan, output);
  for (const auto& [key, value] : metadata.entries()) {
    if (key.starts_with("quern.")) record.settings.set(key, value);
  }
  record.keys = recorded_values(plan, output);
  for (size_t f = 0; f < output.files.size(); ++f) {
    const FileSums& sums = finished.files[f];
    record.files.push_back({relative_name(output, f), output.files[f].size_bytes, sums.sha256, sums.pieces_sha256});
  }
  const std::vector<OutputFileInfo> names = files_of(output);
  for (size_t f = 0; f < output.side_files.size(); ++f) {
    record.files.push_back(side_file_record(names[output.files.size() + f].name, output.side_files[f].bytes));
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
    const BuildRecord record = build_record(plan, i, finished[i], figures);
    const std::string list = build_record_to_json(record);
    const std::string name = output.stem + ".tensors.json";
    write_file_atomically(plan.folder / name, list, OutputFile::Overwrite::kAllow);
    sums[name] = sha256_hex(list);
    for (const FileRecord& file : record.files) sums[file.name] = file.sha256;
  }
  update_sums(plan.folder, sums);
}

}  // namespace quern
