#include <cmath>
#include <iostream>
#include <memory>

#include "cli/build.h"
#include "convert/plan/estimate.h"
#include "convert/plan/make_plan.h"
#include "convert/plan/planned_build.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/model/model_kind.h"

namespace quern::cli {
namespace {

constexpr int64_t kDefaultContext = 32768;
constexpr int64_t kMostContext = 16777216;
struct EstimateOptions {
  std::string model;
  std::vector<std::string> types, recipes, tensor_types, skip, machines;
  int64_t context = kDefaultContext;
  std::string machine_memory, bandwidth, write_recipe;
  bool force = false;
  bool json = false;
};

PlanOptions plan_options(const EstimateOptions& options, const ModelSource& source) {
  PlanOptions plan;
  plan.output = ".";
  plan.types = options.types;
  plan.tensor_types = options.tensor_types;
  plan.skip = options.skip;
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

std::string signed_size(int64_t bytes) {
  const std::string size = format_size(static_cast<uint64_t>(std::abs(bytes)));
  return bytes < 0 ? "-" + size : size;
}

void print_tables(const std::vector<BuildEstimate>& estimates, const std::vector<Machine>& machines, int64_t n_weights) {
  std::vector<std::vector<std::string>> builds = {{"build", "bpw", "file", "tensor bytes", "memory", "read/token"}};
  for (const BuildEstimate& estimate : estimates) {
    const RunCost& cost = estimate.cost;
    builds.push_back({estimate.name, number("%.4f", bits_per_weight(estimate, n_weights)), format_size(estimate.file_bytes),
                      std::to_string(estimate.tensor_bytes), format_size(cost.total_bytes()),
                      format_size(cost.weights.active_bytes() + cost.cache.read_bytes)});
  }
  std::cout << format_table(builds);
  for (const BuildEstimate& estimate : estimates) {
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

// What the one output does to this model, as rules by role, part and layer.
void write_recipe(const EstimateOptions& options, const ModelSource& source, const Plan& plan) {
  if (plan.outputs.size() != 1) throw Error(ErrorKind::kUsage, "--write-recipe writes one recipe; give one --type or --recipe");
  const PlannedOutput& output = plan.outputs.front();
  Recipe recipe = recipe_of_types(output.mix, source.metadata(), source.tensors(), types_of(output));
  recipe.notes = "What " + output.mix + " gives the tensors of " + source.metadata().find_string("general.name").value_or("a model") + ".";
  write_file_atomically(options.write_recipe, recipe_to_json(recipe),
                        options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse);
}

// A context longer than the model was trained for.
void note_long_context(const ModelSource& source, int64_t ctx) {
  const std::string arch = source.metadata().find_string("general.architecture").value_or("");
  const int64_t trained = source.metadata().find_int(arch + ".context_length").value_or(0);
  if (trained <= 0 || ctx <= trained) return;
  std::clog << "quern: note: a context of " << ctx << " tokens is longer than the " << trained << " that the model was trained for\n";
}

int run_plan_verb(const EstimateOptions& options) {
  const std::vector<Machine> machines = wanted_machines(options);
  const ModelOutline outline = open_outline(options.model, {}, options.skip);
  require_model(*outline.source);
  std::vector<Problem> problems;
  const Plan plan = plan_outputs(*outline.source, options.model, plan_options(options, *outline.source), problems);
  if (const int code = report_problems(problems); code != 0) return code;
  const std::string arch = outline.source->metadata().find_string("general.architecture").value_or("model");
  std::clog << "quern: reading " << printable(options.model) << ": " << arch << ", " << plan.tensors.size() << " tensors, "
            << plan.n_weights() << " weights; context " << options.context << '\n';
  std::clog << "quern: writing " << (options.write_recipe.empty() ? "nothing" : printable(options.write_recipe)) << '\n';
  for (const std::string& note : plan.notes) std::clog << "quern: note: " << note << '\n';
  for (const std::string& warning : plan.warnings) print_warning(warning);
  if (!outline.has_tokenizer) std::clog << "quern: note: without a tokenizer the metadata is estimated; the bytes of tensors are exact\n";
  note_long_context(*outline.source, options.context);
  if (!options.write_recipe.empty()) write_recipe(options, *outline.source, plan);

  const std::vector<BuildEstimate> estimates = estimate_builds(outline, plan, options.context);
  if (options.json) {
    std::cout << estimates_to_json(outline, plan, estimates, machines, options.context);
  } else {
    print_tables(estimates, machines, plan.n_weights());
  }
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Context& context) {
  auto options = std::make_shared<EstimateOptions>();
  CLI::App* verb = app.add_subcommand("plan", "Predict sizes, memory and speed, and where a build fits");
  verb->add_option("MODEL", options->model, "checkpoint folder, config.json, or GGUF file")->required()->group("Input");
  add_skip_option(*verb, options->skip);
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
