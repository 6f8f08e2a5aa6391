#include "convert/plan/estimate.h"

#include <nlohmann/json.hpp>

#include "convert/plan/make_plan.h"
#include "convert/plan/planned_build.h"

namespace quern {
namespace {

using nlohmann::ordered_json;

// A tokenizer's keys: token, type, score or merge. 38 to 61 bytes per token in the families that are supported.
constexpr uint64_t kTokenizerBytesPerToken = 50;

uint64_t tokenizer_bytes(const ModelSource& source) {
  for (const LogicalTensor& tensor : source.tensors()) {
    if (tensor.role == Role::kTokenEmbedding) return kTokenizerBytesPerToken * static_cast<uint64_t>(tensor.shape.n_rows());
  }
  return 0;
}

ordered_json to_json(const BuildEstimate& estimate, std::span<const Machine> machines, int64_t n_weights) {
  const RunCost& cost = estimate.cost;
  ordered_json fits = ordered_json::array();
  for (const Machine& machine : machines) {
    const MachineFit fit = fit_on(machine, cost);
    fits.push_back({{"id", machine.id},
                    {"fits", verdict_name(fit.verdict)},
                    {"left_bytes", fit.left_bytes},
                    {"tokens_per_second", fit.tokens_per_second}});
  }
  return {{"name", estimate.name},
          {"bits_per_weight", bits_per_weight(estimate, n_weights)},
          {"tensor_bytes", estimate.tensor_bytes},
          {"file_bytes", estimate.file_bytes},
          {"memory",
           {{"weights", cost.weights.total_bytes()},
            {"cache", cost.cache.size_bytes},
            {"scratch", cost.scratch_bytes},
            {"total", cost.total_bytes()}}},
          {"read_per_token", {{"weights", cost.weights.active_bytes()}, {"cache", cost.cache.read_bytes}}},
          {"machines", fits}};
}

}  // namespace

std::vector<Recipe> possible_recipes(const ModelSource& source, const PlanOptions& options) {
  std::vector<Recipe> possible;
  for (const Recipe& recipe : shipped_recipes()) {
    PlanOptions alone = options;
    alone.recipes = {recipe};
    std::vector<Problem> problems;
    plan_outputs(source, "", alone, problems);
    if (problems.empty()) possible.push_back(recipe);
  }
  return possible;
}

std::vector<BuildEstimate> estimate_builds(const ModelOutline& outline, const Plan& plan, int64_t context) {
  std::vector<BuildEstimate> estimates;
  for (const PlannedOutput& output : plan.outputs) {
    BuildEstimate estimate{output.label, output.tensor_bytes, size_of(output), {}};
    if (!outline.has_tokenizer) estimate.file_bytes += tokenizer_bytes(*outline.source);
    estimate.cost = run_cost(outline.source->metadata(), outline.source->tensors(), types_of(output), context);
    estimates.push_back(std::move(estimate));
  }
  return estimates;
}

const char* verdict_name(MachineFit::Verdict verdict) {
  switch (verdict) {
    case MachineFit::Verdict::kFits:
      return "yes";
    case MachineFit::Verdict::kFitsWithRaisedLimit:
      return "raised limit";
    case MachineFit::Verdict::kTooLarge:
      break;
  }
  return "no";
}

double bits_per_weight(const BuildEstimate& estimate, int64_t n_weights) {
  return 8.0 * static_cast<double>(estimate.tensor_bytes) / static_cast<double>(n_weights);
}

std::string estimates_to_json(const ModelOutline& outline, const Plan& plan, std::span<const BuildEstimate> estimates,
                              std::span<const Machine> machines, int64_t context) {
  ordered_json builds = ordered_json::array();
  for (const BuildEstimate& estimate : estimates) builds.push_back(to_json(estimate, machines, plan.n_weights()));
  const ordered_json root = {{"schema", "quern.estimate/1"},
                             {"architecture", outline.source->metadata().find_string("general.architecture").value_or("")},
                             {"weights", plan.n_weights()},
                             {"context", context},
                             {"headers_read", outline.has_headers},
                             {"file_bytes_exact", outline.has_tokenizer},
                             {"builds", builds},
                             {"notes", plan.notes}};
  return root.dump(1) + "\n";
}

}  // namespace quern
