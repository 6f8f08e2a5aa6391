#include "convert/plan/plan.h"

#include <numeric>

namespace quern {

std::string relative_name(const PlannedOutput& output, size_t file) {
  return (output.folder.empty() ? "" : output.folder + "/") + output.files[file].name;
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
    for (const PlannedFile& file : output.files) bytes += file.size_bytes;
  }
  return bytes;
}

int64_t Plan::n_weights() const {
  return std::accumulate(tensors.begin(), tensors.end(), int64_t{0},
                         [](int64_t sum, const PlannedTensor& t) { return sum + t.shape.n_elements(); });
}

}  // namespace quern
