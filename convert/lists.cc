#include "convert/lists.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "formats/base/file.h"
#include "formats/base/sha256.h"

namespace quern {
namespace fs = std::filesystem;
namespace {

using nlohmann::ordered_json;

constexpr uint64_t kMaxSumsBytes = 16u << 20;
constexpr size_t kHexDigits = 64;

ordered_json tensor_entry(const Plan& plan, const PlannedOutput& output, size_t t, const TensorSums& sums, double energy,
                          const Figure& figure) {
  const Placement& placement = output.tensors[t];
  const auto dims = plan.tensors[t].shape.dims();
  ordered_json entry = {{"name", plan.tensors[t].name},
                        {"type", std::string(name_of(placement.type))},
                        {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
                        {"file", output.files[placement.file].name},
                        {"offset", placement.file_offset},
                        {"size_bytes", placement.size_bytes},
                        {"sha256", sums.sha256}};
  if (!sums.slices.empty()) entry["slices_sha256"] = sums.slices;
  if (plan.tensors[t].integer) return entry;
  entry["exact"] = figure.exact;
  entry["squared_error"] = figure.squared_error;
  entry["relative_error"] = energy > 0 ? std::sqrt(figure.squared_error / energy) : 0;
  return entry;
}

// "HASH  NAME" lines; anything else is not ours and is dropped.
std::map<std::string, std::string> read_sums(const fs::path& path) {
  std::map<std::string, std::string> sums;
  if (!fs::exists(path)) return sums;
  std::istringstream in(read_text_file(path, kMaxSumsBytes));
  for (std::string line; std::getline(in, line);) {
    if (line.size() < kHexDigits + 3 || line[kHexDigits] != ' ') continue;
    const std::string name = line.substr(kHexDigits + 2);
    if (name.find('/') == std::string::npos && fs::exists(path.parent_path() / name)) sums[name] = line.substr(0, kHexDigits);
  }
  return sums;
}

}  // namespace

std::string tensor_list(const Plan& plan, size_t index, const FinishedOutput& finished, const std::vector<TensorFigures>& figures) {
  const PlannedOutput& output = plan.outputs[index];
  ordered_json files = ordered_json::array();
  for (size_t f = 0; f < output.files.size(); ++f) {
    files.push_back({{"name", output.files[f].name}, {"size_bytes", output.files[f].size_bytes}, {"sha256", finished.file_sha256[f]}});
  }
  const ordered_json head = {
      {"schema", "quern.tensors/1"}, {"quern_version", plan.quern_version}, {"recipe", output.mix}, {"files", files}};
  std::string text = head.dump();
  text.pop_back();  // the list goes inside, one tensor per line
  text += ",\"tensors\":[\n";
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    text += tensor_entry(plan, output, t, finished.tensors[t], figures[t].energy, figures[t].outputs[index]).dump();
    text += t + 1 < plan.tensors.size() ? ",\n" : "\n";
  }
  return text + "]}\n";
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
    const std::string list = tensor_list(plan, i, finished[i], figures);
    const std::string name = output.stem + ".tensors.json";
    write_file_atomically(plan.folder / name, list, OutputFile::Overwrite::kAllow);
    sums[name] = sha256_hex(list);
    for (size_t f = 0; f < output.files.size(); ++f) sums[output.files[f].name] = finished[i].file_sha256[f];
  }
  update_sums(plan.folder, sums);
}

}  // namespace quern
