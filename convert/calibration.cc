#include "convert/calibration.h"

#include <algorithm>
#include <array>
#include <set>

namespace quern {
namespace {

// Q2_K only where everything is: as part of larger mixes it is used for what matters least.
bool needs_importance(DType type, const PlannedOutput& output) {
  constexpr std::array kAlways = {DType::IQ1_S, DType::IQ1_M, DType::IQ2_XXS, DType::IQ2_XS, DType::IQ2_S, DType::IQ3_XXS};
  if (type == DType::Q2_K) return output.mix == "Q2_K_S";
  return std::ranges::find(kAlways, type) != kAlways.end();
}

}  // namespace

void check_calibration(const Plan& plan, const Calibration& calibration) {
  const std::string given = calibration.importance.record().sha256, planned = plan.imatrix ? plan.imatrix->sha256 : "";
  if (given == planned) return;
  const std::string name = plan.imatrix ? "'" + printable(plan.imatrix->file) + "' (SHA-256 " + planned + ")" : "none";
  throw Error(ErrorKind::kUsage, "the plan was made with another importance matrix: " + name);
}

void set_imatrix_keys(const Plan& plan, const Importance& importance, PlannedOutput& output) {
  bool used = false;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const Placement& placement = output.tensors[t];
    const bool encoded = !placement.copied && traits(placement.type).block_weights > 1;
    used = used || (encoded && importance.covers(plan.tensors[t].source_index));
  }
  if (!used) return;
  const ImatrixRecord& record = importance.record();
  output.metadata.set("quantize.imatrix.file", record.file);
  if (!record.dataset.empty()) output.metadata.set("quantize.imatrix.dataset", record.dataset);
  output.metadata.set("quantize.imatrix.entries_count", static_cast<uint32_t>(record.n_entries));
  if (record.n_chunks > 0) output.metadata.set("quantize.imatrix.chunks_count", static_cast<uint32_t>(record.n_chunks));
  output.metadata.set("quern.imatrix.sha256", record.sha256);
}

void note_blind_types(const ModelSource& source, const Importance* importance, const PlannedOutput& output, Plan& plan) {
  std::vector<std::string> names;
  std::set<std::string_view> types;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const LogicalTensor& tensor = source.tensors()[plan.tensors[t].source_index];
    const Placement& placement = output.tensors[t];
    const bool end = tensor.role == Role::kTokenEmbedding || tensor.role == Role::kOutput;
    if (end || placement.copied || !needs_importance(placement.type, output)) continue;
    if (importance != nullptr && importance->covers(plan.tensors[t].source_index)) continue;
    names.push_back(tensor.name);
    types.insert(name_of(placement.type));
  }
  if (names.empty()) return;
  std::string list;
  for (const std::string_view type : types) list += (list.empty() ? "" : ", ") + std::string(type);
  plan.notes.push_back(output.mix + ": " + list + " without an importance matrix for " + std::to_string(names.size()) + " tensors ('" +
                       names.front() + "'" + (names.size() > 1 ? " ..." : "") + "); much worse than with one, see quern imatrix");
}

}  // namespace quern
