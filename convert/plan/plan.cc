#include "convert/plan/plan.h"

#include <numeric>

namespace quern {

namespace {

std::string in_folder(const PlannedOutput& output, const std::string& name) {
  return (output.folder.empty() ? "" : output.folder + "/") + name;
}

}  // namespace

std::string relative_name(const PlannedOutput& output, size_t file) { return in_folder(output, output.files[file].name); }

std::vector<OutputFileInfo> files_of(const PlannedOutput& output) {
  std::vector<OutputFileInfo> files;
  for (const PlannedFile& file : output.files) files.push_back({in_folder(output, file.name), file.size_bytes});
  for (const SideFile& file : output.side_files) files.push_back({in_folder(output, file.name), file.bytes.size()});
  return files;
}

std::vector<Plan> runs_of(const Plan& plan) {
  if (!plan.one_by_one) return {plan};
  std::vector<Plan> runs;
  for (const PlannedOutput& output : plan.outputs) {
    runs.push_back(plan);
    runs.back().outputs = {output};
  }
  return runs;
}

uint64_t Plan::source_bytes() const {
  return std::accumulate(tensors.begin(), tensors.end(), uint64_t{0},
                         [](uint64_t sum, const PlannedTensor& t) { return sum + t.source_bytes; });
}

uint64_t Plan::output_bytes() const {
  uint64_t bytes = 0;
  for (const PlannedOutput& output : outputs) {
    for (const OutputFileInfo& file : files_of(output)) bytes += file.size_bytes;
  }
  return bytes;
}

int64_t Plan::n_weights() const {
  return std::accumulate(tensors.begin(), tensors.end(), int64_t{0},
                         [](int64_t sum, const PlannedTensor& t) { return sum + t.shape.n_elements(); });
}

}  // namespace quern
