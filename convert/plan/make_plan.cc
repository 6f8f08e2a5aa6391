#include "convert/plan/make_plan.h"

#include <algorithm>
#include <set>

#include "convert/plan/calibration.h"
#include "convert/plan/layout.h"
#include "convert/plan/memory.h"
#include "convert/plan/naming.h"
#include "convert/plan/plan_checks.h"
#include "convert/plan/plan_notes.h"
#include "convert/plan/plan_types.h"
#include "convert/record/key_kinds.h"
#include "formats/base/name_pattern.h"
#include "formats/base/version.h"
#include "formats/model/skip.h"
#include "quantize/plain/encode.h"

// Planning goes in the order in which things become fixed: which tensors, which type each gets in every output, what the files say about
// themselves, where everything lies, and how many rows a chunk may have in the memory there is. No step reads tensor data, and each
// reports what is wrong and goes on as far as it can, so that one attempt shows every mistake.

namespace quern {
namespace {

std::vector<PlannedTensor> select_tensors(const ModelSource& source, const PlanOptions& options, std::vector<Problem>& problems) {
  std::optional<NamePattern> pattern;
  if (options.tensors) pattern.emplace(*options.tensors);
  std::vector<PlannedTensor> selected;
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const LogicalTensor& tensor = source.tensors()[i];
    if (pattern && !pattern->found_in(tensor.name)) continue;
    PlannedTensor planned;
    planned.name = tensor.name;
    planned.shape = tensor.shape;
    planned.source_index = i;
    planned.n_slices = tensor.n_slices;
    planned.source_bytes = tensor.source_bytes;
    planned.integer = tensor.keep == Keep::kInteger;
    selected.push_back(std::move(planned));
  }
  if (selected.empty()) {
    problems.push_back({ErrorKind::kUsage, pattern ? "--tensors matches none of the model's tensors" : "the model has no tensors"});
  }
  return selected;
}

void set_output_metadata(const Plan& plan, const WantedOutput& wanted, const PlanOptions& options, PlannedOutput& output) {
  set_recipe_keys(plan, wanted, output);
  if (options.tensors) output.metadata.set("quern.partial", *options.tensors);
  if (!options.skip.empty()) output.metadata.set(kSkipKey, options.skip);
  std::set<DType> encoded;
  for (const Placement& placement : output.tensors) {
    if (!placement.copied && traits(placement.type).block_weights > 1 && has_encoder(placement.type)) encoded.insert(placement.type);
  }
  for (const DType type : encoded) {
    output.metadata.set("quern.encoder." + std::string(name_of(type)), static_cast<uint32_t>(encoder_revision(type)));
  }
}

// "Q4_K_M", or "Q4_K_M-custom" for what goes by other rules than those that everybody knows under the name. Recipes of people have names of
// their own. It follows from the recipe alone, so that a file that is made again from the recipe in it gets its name again.
std::string label_of(const Recipe& recipe) {
  const std::span<const Recipe> shipped = shipped_recipes();
  const auto known = std::ranges::find(shipped, recipe.name, &Recipe::name);
  const Mix* mix = find_mix(recipe.name);
  const bool other_rules = (mix != nullptr && recipe.rules != mix_recipe(*mix).rules) ||
                           (mix == nullptr && known != shipped.end() && recipe.rules != known->rules);
  return recipe.name + (other_rules ? "-custom" : "");
}

PlannedOutput plan_output(const ModelSource& source, const Plan& plan, const WantedOutput& wanted, const std::vector<DType>& types,
                          const PlanOptions& options, const Calibration& calibration) {
  PlannedOutput output;
  output.container = options.container;
  output.mix = wanted.recipe.name;
  output.lossless = wanted.lossless;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    Placement placement;
    placement.type = types[t];
    placement.copied = source.can_copy(plan.tensors[t].source_index, types[t]);
    placement.size_bytes = tensor_size_bytes(types[t], plan.tensors[t].shape);
    output.tensor_bytes += placement.size_bytes;
    output.tensors.push_back(placement);
  }
  set_output_metadata(plan, wanted, options, output);
  if (!calibration.importance.empty()) set_imatrix_keys(plan, calibration.importance, output);
  if (calibration.feedback) set_feedback_keys(plan, *calibration.feedback, output);
  output.label = label_of(wanted.recipe);
  if (output.lossless) output.label += "-" + std::string(name_of(dominant_type(plan, output)));
  output.stem = options.single_file ? options.output.stem().string()
                                    : output_stem(plan.metadata, plan.mtp, options.tensors.has_value(), output.label);
  lay_out(plan, options.split_bytes, options.metadata_shard, output);
  if (options.folder_per_type && output.files.size() > 1) output.folder = output.label;
  if (output.container->has_own_folder()) output.folder = output.stem;
  add_side_files(plan, output);
  return output;
}

// Without the keys of a source that describe its own file, and how it was made, instead of the model.
Metadata model_metadata(const Metadata& source) {
  Metadata metadata = source;
  for (const auto& [key, value] : source.entries()) {
    if (is_of_the_build(key)) metadata.erase(key);
  }
  return metadata;
}

std::vector<PlannedSource> plan_sources(const ModelSource& source) {
  std::vector<PlannedSource> sources;
  for (const SourceFile& file : source.files()) sources.push_back({file.name, file.size_bytes, file.mtime_ns, fingerprint(file.path)});
  return sources;
}

// Blocks that become other blocks lose twice.
void note_requantization(const ModelSource& source, Plan& plan) {
  if (std::filesystem::is_directory(plan.model)) return;
  for (const PlannedOutput& output : plan.outputs) {
    std::set<std::string_view> types;
    size_t count = 0;
    for (size_t t = 0; t < plan.tensors.size(); ++t) {
      const DType stored = source.tensors()[plan.tensors[t].source_index].source_type;
      if (output.tensors[t].copied || traits(stored).block_weights == 1 || traits(output.tensors[t].type).block_weights == 1) continue;
      types.insert(name_of(stored));
      ++count;
    }
    if (count == 0) continue;
    std::string names;
    for (const std::string_view type : types) names += (names.empty() ? "" : ", ") + std::string(type);
    plan.notes.push_back(output.mix + ": " + std::to_string(count) + " tensors are already quantized (" + names +
                         ") and are quantized again; the original checkpoint gives a better file");
  }
}

}  // namespace

Plan plan_outputs(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options, std::vector<Problem>& problems,
                  const Calibration& calibration) {
  const std::vector<Problem> of_options = check_options(options);
  problems.insert(problems.end(), of_options.begin(), of_options.end());
  PlanOptions usable = options;
  if (std::any_of(of_options.begin(), of_options.end(), [](const Problem& p) { return p.message.starts_with("--tensors"); }))
    usable.tensors.reset();

  Plan plan;
  plan.quern_version = kVersion;
  plan.model = model;
  plan.mtp = options.mtp;
  plan.folder = options.single_file ? options.output.parent_path() : options.output;
  if (plan.folder.empty()) plan.folder = ".";
  plan.force = options.force;
  plan.lists = !options.single_file;
  plan.one_by_one = options.one_by_one;
  plan.beside_bytes = options.beside_bytes;
  if (options.sync_bytes != 0) plan.sync_bytes = options.sync_bytes;
  if (!calibration.importance.empty()) plan.imatrix = calibration.importance.record();
  plan.imatrix_path = options.imatrix;
  if (calibration.feedback) plan.statistics = calibration.feedback->record();
  plan.statistics_path = options.statistics;
  plan.metadata = model_metadata(source.metadata());
  plan.notes.assign(source.notes().begin(), source.notes().end());
  plan.tensors = select_tensors(source, usable, problems);
  check_overrides(source, options, problems);
  note_overrides(source, options, plan);
  plan.effort = wanted_effort(options, problems);
  for (const WantedOutput& wanted : wanted_outputs(options, plan.effort)) {
    const auto choices = planned_types(source, wanted, plan.tensors, !calibration.importance.empty(), problems);
    if (!choices) continue;
    std::vector<DType> types;
    for (const TypeChoice& choice : *choices) types.push_back(choice.type);
    if (!can_hold(*options.container, plan.tensors, types, wanted.recipe.name, problems)) continue;
    check_quantizable(source, wanted.mix, problems);
    plan.outputs.push_back(plan_output(source, plan, wanted, types, usable, calibration));
    note_choices(wanted, usable, *choices, plan);
    if (wanted.lossless && !options.tensor_types.empty()) plan.notes.push_back(wanted.recipe.name + ": --tensor-type does not apply");
  }
  for (const PlannedOutput& output : plan.outputs) note_blind_types(source, calibration, output, plan);
  check_types(plan, problems);
  return plan;
}

Plan make_plan(const ModelSource& source, const std::filesystem::path& model, const PlanOptions& options, std::vector<Problem>& problems,
               const Calibration& calibration) {
  Plan plan = plan_outputs(source, model, options, problems, calibration);
  plan.sources = plan_sources(source);
  if (plan.outputs.empty()) return plan;
  note_requantization(source, plan);
  plan_memory(source, options.memory_bytes, calibration.feedback ? calibration.feedback->resident_bytes() : 0, plan, problems);
  return plan;
}

}  // namespace quern
