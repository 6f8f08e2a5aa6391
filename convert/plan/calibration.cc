#include "convert/plan/calibration.h"

#include <set>

#include "formats/base/counted.h"
#include "formats/base/error.h"
#include "recipes/type_ladder.h"

namespace quern {
namespace {

bool needs_importance(DType type, const PlannedOutput& output) {
  const TypeStep* step = find_step(type);
  if (step == nullptr || step->needs_importance == NeedsImportance::kNo) return false;
  return step->needs_importance == NeedsImportance::kYes || output.mix == std::string(name_of(type)) + "_S";
}

}  // namespace

Importance load_importance(const std::filesystem::path& imatrix, bool strict, const ModelSource& source) {
  if (imatrix.empty()) return {};
  Importance importance(read_imatrix(imatrix), source.tensors());
  if (strict) importance.require_sound();
  return importance;
}

void check_calibration(const Plan& plan, const Calibration& calibration) {
  const std::string given = calibration.importance.record().sha256, planned = plan.imatrix ? plan.imatrix->sha256 : "";
  if (given != planned) {
    const std::string name = plan.imatrix ? "'" + printable(plan.imatrix->file) + "' (SHA-256 " + planned + ")" : "none";
    throw Error(ErrorKind::kUsage, "the plan was made with another importance matrix: " + name);
  }
  const std::string with = calibration.feedback ? calibration.feedback->record().sha256 : "";
  if (with == (plan.statistics ? plan.statistics->sha256 : "")) return;
  throw Error(ErrorKind::kUsage, "the plan was made with other statistics for error feedback: " +
                                     (plan.statistics ? "SHA-256 of the list " + plan.statistics->sha256 : std::string("none")));
}

void set_feedback_keys(const Plan& plan, FeedbackEncoder& feedback, PlannedOutput& output) {
  const StatisticsRecord& record = feedback.record();
  const bool in_folder = !record.sha256.empty();
  bool used = !in_folder;
  for (size_t t = 0; in_folder && t < plan.tensors.size(); ++t) {
    const Placement& placement = output.tensors[t];
    used = used || (!placement.copied && feedback.n_slices(plan.tensors[t].source_index, placement.type) > 0);
  }
  if (!used) return;
  output.metadata.set("quern.feedback.mode", record.mode);
  if (in_folder) output.metadata.set("quern.feedback.statistics_sha256", record.sha256);
  output.metadata.set("quern.feedback.text", record.text);
  output.metadata.set("quern.feedback.text_sha256", record.text_sha256);
  output.metadata.set("quern.feedback.tokens", static_cast<uint64_t>(record.n_tokens));
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

void note_blind_types(const ModelSource& source, const Calibration& calibration, const PlannedOutput& output, Plan& plan) {
  FeedbackEncoder* feedback = calibration.feedback.get();
  // Collected while the build is made, which here would begin with it: for all inputs.
  if (feedback != nullptr && feedback->record().sha256.empty()) return;
  std::vector<std::string> names;
  std::set<std::string_view> types;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const LogicalTensor& tensor = source.tensors()[plan.tensors[t].source_index];
    const Placement& placement = output.tensors[t];
    const bool end = tensor.role == Role::kTokenEmbedding || tensor.role == Role::kOutput;
    if (end || placement.copied || !needs_importance(placement.type, output)) continue;
    if (calibration.importance.covers(plan.tensors[t].source_index)) continue;
    if (feedback != nullptr && feedback->n_slices(plan.tensors[t].source_index, placement.type) > 0) continue;
    names.push_back(tensor.name);
    types.insert(name_of(placement.type));
  }
  if (names.empty()) return;
  std::string list;
  for (const std::string_view type : types) list += (list.empty() ? "" : ", ") + std::string(type);
  plan.notes.push_back(output.mix + ": " + (list == output.mix ? "" : list + " ") + "without anything known about the inputs of " +
                       counted(names.size(), "tensor") + " ('" + names.front() + "'" + (names.size() > 1 ? " ..." : "") +
                       "); usually much worse than with a --calib-text");
}

}  // namespace quern
