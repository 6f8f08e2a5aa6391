#include "cli/evaluation.h"

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "formats/base/resources.h"
#include "formats/model/model_facts.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

ordered_json pass_json(const PlannedPass& pass) {
  const EvalPlan& plan = pass.plan;
  return {{"model", pass.model},
          {"tokens", plan.n_tokens},
          {"weight_bytes", plan.weight_bytes},
          {"state_bytes", plan.state_bytes},
          {"spill", plan.spill},
          {"layer_bytes", plan.layer_bytes},
          {"expert_bytes", plan.expert_bytes},
          {"work_bytes", plan.work_bytes},
          {"prefetch_bytes", plan.prefetch_bytes},
          {"memory_bytes", plan.total_bytes()}};
}

}  // namespace

void add_evaluation_options(CLI::App& verb, EvaluationOptions& options, bool text_required) {
  CLI::Option* text = verb.add_option("--eval-text", options.text, "text to measure on")->type_name("FILE")->group("Text");
  if (text_required) text->required();
  verb.add_option("--ctx", options.ctx, "tokens per chunk, 4 or more; default 512")->type_name("N")->group("Text");
  verb.add_option("--chunks", options.chunks, "use the first N only; default all")->type_name("N")->check(at_least_one)->group("Text");
  verb.add_option("--threads", options.threads, "1 or more; default all of them")->type_name("N")->check(at_least_one)->group("Run");
  verb.add_option("--memory", options.memory, "budget, as 6GiB; default up to 8GiB")->type_name("SIZE")->check(a_size)->group("Run");
  verb.add_flag("--plain", options.plain, "sums in double; slower, the oracle")->group("Run");
  verb.add_flag("--dry-run", options.dry_run, "show the plan only")->group("Run");
  verb.add_flag("--json", options.json, "results as JSON")->group("Run");
}

EvalOptions eval_options(const EvaluationOptions& options) {
  return {.memory_bytes = options.memory.empty() ? default_evaluation_memory() : parse_size(options.memory),
          .arithmetic = options.plain ? Arithmetic::kPlain : fastest_arithmetic()};
}

TextOptions text_options(const EvaluationOptions& options) {
  return {.file = options.text, .ctx = options.ctx, .max_chunks = options.chunks};
}

void announce_evaluation(const ModelSource& source, const std::string& model, const EvaluationOptions& options, const ChunkedText& text,
                         const EvalPlan& plan) {
  std::clog << "quern: reading " << printable(model) << " (" << format_size(size_on_disk(source)) << ", " << source.tensors().size()
            << " tensors)\n";
  std::clog << "quern: text " << printable(options.text) << ": " << text.n_text_tokens << " tokens, " << text.chunks.size() << " chunks of "
            << options.ctx << (text.tokenizer->adds_bos() ? ", BOS first" : ", no BOS") << "; memory " << format_size(plan.total_bytes())
            << (plan.spill ? ", states in a temporary file of " + format_size(plan.state_bytes) : "") << '\n';
  for (const std::string& warning : text.warnings) print_warning(warning);
}

std::string plan_table(const EvalPlan& plan) {
  return format_table({{"tokens", std::to_string(plan.n_tokens)},
                       {"weights read at most", format_size(plan.weight_bytes)},
                       {plan.spill ? "states of all tokens (in a file)" : "states of all tokens", format_size(plan.state_bytes)},
                       {"largest layer without experts", format_size(plan.layer_bytes)},
                       {"largest expert", format_size(plan.expert_bytes)},
                       {"intermediates", format_size(plan.work_bytes)},
                       {"read ahead", format_size(plan.prefetch_bytes)},
                       {"memory", format_size(plan.total_bytes())}});
}

std::string plans_to_json(const char* schema, const std::vector<PlannedPass>& passes) {
  ordered_json root = {{"schema", schema}, {"dry_run", true}};
  if (passes.size() == 1) {
    root.update(pass_json(passes.front()));
  } else {
    root["models"] = ordered_json::array();
    for (const PlannedPass& pass : passes) root["models"].push_back(pass_json(pass));
  }
  return root.dump(1) + "\n";
}

std::string with_error(const char* format, Estimate e) { return number(format, e.value) + " +-" + number(format, e.error); }

void print_cost(uint64_t bytes_read, uint64_t size_bytes, double seconds) {
  char time[32];
  std::snprintf(time, sizeof time, "%.1f s", seconds);
  std::clog << "quern: read " << amount_read(bytes_read, size_bytes) << ", peak memory " << format_size(peak_resident_bytes()) << ", "
            << time << '\n';
}

}  // namespace quern::cli
