#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/build.h"
#include "convert/plan/make_plan.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/model/model_outline.h"
#include "recipes/machines.h"
#include "recipes/size_estimate.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kDefaultContext = 32768;
constexpr int64_t kMostContext = 16777216;
// A tokenizer's keys: token, type, score or merge. 38 to 61 bytes per token in the families that are supported.
constexpr uint64_t kTokenizerBytesPerToken = 50;

struct EstimateOptions {
  std::string model;
  std::vector<std::string> types, recipes, tensor_types, machines;
  int64_t context = kDefaultContext;
  std::string machine_memory, bandwidth, write_recipe;
  bool force = false;
  bool json = false;
};

// One output with what it costs.
struct Estimate {
  std::string name;
  uint64_t tensor_bytes = 0;
  uint64_t file_bytes = 0;
  RunCost cost;
};

// The shipped recipes that this model can have: not every checkpoint has a lossless build.
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

PlanOptions plan_options(const EstimateOptions& options, const ModelSource& source) {
  PlanOptions plan;
  plan.output = ".";
  plan.types = options.types;
  plan.tensor_types = options.tensor_types;
  for (const std::string& recipe : options.recipes) plan.recipes.push_back(load_recipe(recipe));
  if (plan.types.empty() && plan.recipes.empty()) plan.recipes = possible_recipes(source, plan);
  return plan;
}

// "819GB/s" -> "819GB"
std::string per_second(const std::string& text) { return text.substr(0, text.size() - (text.ends_with("/s") ? 2 : 0)); }

std::string a_bandwidth(const std::string& text) {
  const std::string wrong = a_size(per_second(text));
  return wrong.empty() && parse_size(per_second(text)) == 0 ? "must be more than nothing" : wrong;
}

std::vector<Machine> wanted_machines(const EstimateOptions& options) {
  std::vector<Machine> machines;
  for (const std::string& id : options.machines) machines.push_back(get_machine(id));
  if (options.machine_memory.empty() != options.bandwidth.empty()) {
    throw Error(ErrorKind::kUsage, "--machine-memory and --bandwidth belong together");
  }
  if (!options.machine_memory.empty()) {
    const auto bandwidth = static_cast<double>(parse_size(per_second(options.bandwidth)));
    machines.push_back(custom_machine(parse_size(options.machine_memory), bandwidth));
  }
  if (machines.empty()) machines.assign(all_machines().begin(), all_machines().end());
  return machines;
}

uint64_t tokenizer_bytes(const ModelSource& source) {
  for (const LogicalTensor& tensor : source.tensors()) {
    if (tensor.role == Role::kTokenEmbedding) return kTokenizerBytesPerToken * static_cast<uint64_t>(tensor.shape.n_rows());
  }
  return 0;
}

std::vector<DType> types_of(const PlannedOutput& output) {
  std::vector<DType> types;
  for (const Placement& placement : output.tensors) types.push_back(placement.type);
  return types;
}

std::vector<Estimate> estimate(const ModelOutline& outline, const Plan& plan, int64_t context) {
  std::vector<Estimate> estimates;
  for (const PlannedOutput& output : plan.outputs) {
    Estimate estimate{output.label, output.tensor_bytes, 0, {}};
    for (const PlannedFile& file : output.files) estimate.file_bytes += file.size_bytes;
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

std::string signed_size(int64_t bytes) {
  const std::string size = format_size(static_cast<uint64_t>(std::abs(bytes)));
  return bytes < 0 ? "-" + size : size;
}

double bits_per_weight_of(const Estimate& estimate, int64_t n_weights) {
  return 8.0 * static_cast<double>(estimate.tensor_bytes) / static_cast<double>(n_weights);
}

void print_tables(const std::vector<Estimate>& estimates, const std::vector<Machine>& machines, int64_t n_weights) {
  std::vector<std::vector<std::string>> builds = {{"build", "bpw", "file", "tensor bytes", "memory", "read/token"}};
  for (const Estimate& estimate : estimates) {
    const RunCost& cost = estimate.cost;
    builds.push_back({estimate.name, number("%.4f", bits_per_weight_of(estimate, n_weights)), format_size(estimate.file_bytes),
                      std::to_string(estimate.tensor_bytes), format_size(cost.total_bytes()),
                      format_size(cost.weights.active_bytes() + cost.cache.read_bytes)});
  }
  std::cout << format_table(builds);
  for (const Estimate& estimate : estimates) {
    const RunCost& cost = estimate.cost;
    std::cout << '\n'
              << estimate.name << ": " << format_size(cost.weights.total_bytes()) << " weights + " << format_size(cost.cache.size_bytes)
              << " cache + " << format_size(cost.scratch_bytes) << " scratch\n";
    std::vector<std::vector<std::string>> rows = {{"machine", "fits", "left", "tokens/s below"}};
    for (const Machine& machine : machines) {
      const MachineFit fit = fit_on(machine, cost);
      const bool fits = fit.verdict != MachineFit::Verdict::kTooLarge;
      rows.push_back(
          {machine.name, verdict_name(fit.verdict), signed_size(fit.left_bytes), fits ? number("%.1f", fit.tokens_per_second) : "-"});
    }
    std::cout << format_table(rows);
  }
}

ordered_json to_json(const Estimate& estimate, const std::vector<Machine>& machines, int64_t n_weights) {
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
          {"bits_per_weight", bits_per_weight_of(estimate, n_weights)},
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

void print_json(const ModelOutline& outline, const Plan& plan, const std::vector<Estimate>& estimates, const std::vector<Machine>& machines,
                int64_t context) {
  ordered_json builds = ordered_json::array();
  for (const Estimate& estimate : estimates) builds.push_back(to_json(estimate, machines, plan.n_weights()));
  const ordered_json root = {{"schema", "quern.estimate/1"},
                             {"architecture", outline.source->metadata().find_string("general.architecture").value_or("")},
                             {"weights", plan.n_weights()},
                             {"context", context},
                             {"headers_read", outline.has_headers},
                             {"file_bytes_exact", outline.has_tokenizer},
                             {"builds", builds},
                             {"notes", plan.notes}};
  std::cout << root.dump(1) << '\n';
}

// What the one output does to this model, as rules by role, part and layer.
void write_recipe(const EstimateOptions& options, const ModelSource& source, const Plan& plan) {
  if (plan.outputs.size() != 1) throw Error(ErrorKind::kUsage, "--write-recipe writes one recipe; give one --type or --recipe");
  const PlannedOutput& output = plan.outputs.front();
  Recipe recipe = recipe_of_types(output.mix, source.metadata(), source.tensors(), types_of(output));
  recipe.notes = "What " + output.mix + " gives the tensors of " + source.metadata().find_string("general.name").value_or("a model") + ".";
  write_file_atomically(options.write_recipe, recipe_to_json(recipe),
                        options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse);
}

int run_plan_verb(const EstimateOptions& options) {
  const std::vector<Machine> machines = wanted_machines(options);
  const ModelOutline outline = open_outline(options.model);
  std::vector<Problem> problems;
  const Plan plan = plan_outputs(*outline.source, options.model, plan_options(options, *outline.source), problems);
  if (const int code = report_problems(problems); code != 0) return code;
  const std::string arch = outline.source->metadata().find_string("general.architecture").value_or("model");
  std::cerr << "quern: reading " << printable(options.model) << ": " << arch << ", " << plan.tensors.size() << " tensors, "
            << plan.n_weights() << " weights; context " << options.context << '\n';
  std::cerr << "quern: writing " << (options.write_recipe.empty() ? "nothing" : printable(options.write_recipe)) << '\n';
  for (const std::string& note : plan.notes) std::cerr << "quern: note: " << note << '\n';
  if (!outline.has_tokenizer) std::cerr << "quern: note: without a tokenizer the metadata is estimated; the bytes of tensors are exact\n";
  if (!options.write_recipe.empty()) write_recipe(options, *outline.source, plan);

  const std::vector<Estimate> estimates = estimate(outline, plan, options.context);
  if (options.json) {
    print_json(outline, plan, estimates, machines, options.context);
  } else {
    print_tables(estimates, machines, plan.n_weights());
  }
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Context& context) {
  auto options = std::make_shared<EstimateOptions>();
  CLI::App* verb = app.add_subcommand("plan", "Predict sizes, memory and speed, and where a build fits");
  verb->add_option("MODEL", options->model, "checkpoint folder, a config.json, or a GGUF file")->required()->group("Input");
  verb->add_option("--type", options->types, "Q4_K_M, lossless ...; default: shipped recipes")
      ->type_name("TYPE")
      ->allow_extra_args(false)
      ->group("Builds");
  verb->add_option("--recipe", options->recipes, "by name, or a JSON or GGUF file")
      ->type_name("RECIPE")
      ->allow_extra_args(false)
      ->group("Builds");
  verb->add_option("--tensor-type", options->tensor_types, "another type for some; first match wins")
      ->type_name("REGEX=T")
      ->allow_extra_args(false)
      ->group("Builds");
  verb->add_option("--write-recipe", options->write_recipe, "the one build's types as a recipe")->type_name("FILE")->group("Builds");
  verb->add_option("--ctx", options->context, "tokens of context; default: 32768")
      ->type_name("N")
      ->check([](const std::string& text) {
        int64_t n = 0;
        return CLI::detail::lexical_cast(text, n) && n >= 1 && n <= kMostContext ? "" : "must be a number from 1 to 16777216";
      })
      ->group("Run");
  verb->add_option("--machine", options->machines, "mac-m3-ultra-256 ...; default: all known")
      ->type_name("ID")
      ->allow_extra_args(false)
      ->group("Run");
  verb->add_option("--machine-memory", options->machine_memory, "of another machine, as 128GB")
      ->type_name("SIZE")
      ->check(a_size)
      ->group("Run");
  verb->add_option("--bandwidth", options->bandwidth, "of its memory, as 819GB/s")->type_name("SIZE")->check(a_bandwidth)->group("Run");
  verb->add_flag("--force", options->force, "replace an existing recipe")->group("Output");
  verb->add_flag("--json", options->json, "results as JSON on stdout")->group("Output");
  verb->group("Choose")->footer("quern plan DeepSeek-V4-Flash/config.json --recipe dynamic-2bit");
  verb->callback([options, &context] { context.command = [options] { return run_plan_verb(*options); }; });
}

}  // namespace quern::cli
