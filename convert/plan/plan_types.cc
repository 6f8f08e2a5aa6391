#include "convert/plan/plan_types.h"

#include <algorithm>
#include <array>
#include <set>

#include "convert/plan/plan_checks.h"

namespace quern {
namespace {

bool is_lossless(const Recipe& recipe) {
  return std::all_of(recipe.rules.begin(), recipe.rules.end(),
                     [](const RecipeRule& rule) { return rule.type.kind == RecipeType::Kind::kLossless; });
}

// The mix that a recipe is a variation of: its last rule.
const Mix* base_mix(const Recipe& recipe) {
  RecipeRule rest;
  rest.type = recipe.rules.back().type;
  return recipe.rules.back() == rest ? rest.type.mix : nullptr;
}

WantedOutput wanted_output(const Recipe& recipe, const std::vector<RecipeRule>& overrides) {
  WantedOutput wanted{recipe, base_mix(recipe), is_lossless(recipe)};
  if (wanted.lossless) return wanted;
  wanted.recipe.rules.insert(wanted.recipe.rules.begin(), overrides.begin(), overrides.end());
  wanted.n_overrides = overrides.size();
  return wanted;
}

// llama_ftype of a file that is mostly of one type.
int32_t mix_number_of(DType type) {
  if (type == DType::MXFP4) return find_mix("MXFP4_MOE")->file_type;
  const Mix* mix = find_mix(name_of(type));
  return mix == nullptr ? find_mix("BF16")->file_type : mix->file_type;
}

}  // namespace

Effort wanted_effort(const PlanOptions& options, std::vector<Problem>& problems) {
  if (options.effort) return *options.effort;
  std::set<std::string> efforts;
  for (const Recipe& recipe : options.recipes) efforts.insert(recipe.effort.empty() ? "default" : recipe.effort);
  if (efforts.size() > 1 || (efforts.size() == 1 && !options.types.empty() && *efforts.begin() != "default")) {
    problems.push_back({ErrorKind::kUsage, "the outputs ask for different efforts; --effort decides for all"});
  }
  return efforts.empty() ? Effort::kDefault : find_effort(*efforts.begin()).value_or(Effort::kDefault);
}

std::vector<WantedOutput> wanted_outputs(const PlanOptions& options, Effort effort) {
  std::vector<Problem> already_reported;
  const std::vector<RecipeRule> overrides = parse_overrides(options.tensor_types, already_reported);
  std::vector<WantedOutput> outputs;
  for (const Mix* mix : parse_types(options.types, already_reported)) outputs.push_back(wanted_output(mix_recipe(*mix), overrides));
  for (const Recipe& recipe : options.recipes) outputs.push_back(wanted_output(recipe, overrides));
  for (WantedOutput& wanted : outputs) wanted.recipe.effort = effort == Effort::kDefault ? "" : name_of(effort);
  return outputs;
}

std::optional<std::vector<TypeChoice>> planned_types(const ModelSource& source, const WantedOutput& wanted,
                                                     const std::vector<PlannedTensor>& selected, bool have_imatrix,
                                                     std::vector<Problem>& problems) {
  std::set<size_t> planned;
  for (const PlannedTensor& tensor : selected) planned.insert(tensor.source_index);
  const auto exactness = [&](size_t i) {  // asking reads bytes: not for tensors that are left out
    return planned.count(i) > 0 ? source.exactness(i) : Exactness{source.tensors()[i].source_type, ""};
  };
  try {
    const std::vector<TypeChoice> choices = choose_types(wanted.recipe, source.metadata(), source.tensors(), have_imatrix, exactness);
    std::vector<TypeChoice> of_selected;
    for (const PlannedTensor& tensor : selected) of_selected.push_back(choices[tensor.source_index]);
    return of_selected;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage && error.kind() != ErrorKind::kUnsupported) throw;
    problems.push_back({error.kind(), error.what()});
    return std::nullopt;
  }
}

DType dominant_type(const Plan& plan, const PlannedOutput& output) {
  std::array<int64_t, 256> weights{};
  for (size_t t = 0; t < plan.tensors.size(); ++t)
    weights[static_cast<size_t>(output.tensors[t].type)] += plan.tensors[t].shape.n_elements();
  return static_cast<DType>(std::max_element(weights.begin(), weights.end()) - weights.begin());
}

void set_recipe_keys(const Plan& plan, const WantedOutput& wanted, PlannedOutput& output) {
  const int32_t mix_number = wanted.mix != nullptr ? wanted.mix->file_type : mix_number_of(dominant_type(plan, output));
  output.container->set_type_keys(mix_number, output.metadata);
  output.metadata.set("quern.version", plan.quern_version);
  output.metadata.set("quern.recipe", wanted.recipe.name);
  if (plan.effort != Effort::kDefault) output.metadata.set("quern.effort", std::string(name_of(plan.effort)));
  if (as_mix(wanted.recipe) != nullptr) return;
  output.metadata.set("quern.recipe.json", canonical_json(wanted.recipe));
  output.metadata.set("quern.recipe.sha256", recipe_id(wanted.recipe));
}

}  // namespace quern
