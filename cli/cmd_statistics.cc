#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/evaluation.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/model/model_facts.h"
#include "verify/calibrate/collect.h"

namespace quern::cli {
namespace {

struct StatisticsOptions {
  std::string model;
  std::string output;
  std::string build;  // mix or recipe that the statistics follow; empty: original
  int64_t tokens = 131072;
  bool force = false;
  EvaluationOptions evaluation;
};

std::string to_json(const StatisticsOptions& options, const EvalPlan& plan) {
  const nlohmann::ordered_json root = {{"schema", "quern.statistics-report/1"},
                                       {"model", options.model},
                                       {"folder", options.output},
                                       {"mode", options.build.empty() ? kOriginalMode : kSequentialMode},
                                       {"tokens", plan.n_tokens}};
  return root.dump(1) + "\n";
}

int run_statistics(const StatisticsOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const ThreadLimit limit(options.evaluation.threads);
  const std::unique_ptr<ModelSource> source = open_model(options.model);
  const CalibrationText text = load_calibration_text(*source, options.model, options.evaluation.text, options.tokens,
                                                     options.evaluation.ctx, options.build.empty() ? kOriginalMode : kSequentialMode);
  const EvalOptions eval = eval_options(options.evaluation);
  EvaluationOptions shown = options.evaluation;
  shown.chunks = std::ssize(text.chunks);
  const EvalPlan plan = Evaluator(*source, eval).plan(text.chunks);
  announce_evaluation(*source, options.model, shown, load_text(*source, text_options(shown)), plan);
  std::clog << "quern: writing " << printable(options.output) << '\n';
  if (options.evaluation.dry_run) {
    std::cout << (options.evaluation.json ? plans_to_json("quern.statistics-report/1", {{options.model, plan}}) : plan_table(plan));
    return 0;
  }
  ProgressBar bar;
  StatisticsRunOptions run{.model = options.model,
                           .folder = options.output,
                           .build = {},
                           .overwrite = options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse,
                           .eval = eval};
  if (!options.build.empty()) run.build = load_recipe(options.build);
  collect_statistics(*source, text, run, bar);
  if (options.evaluation.json) std::cout << to_json(options, plan);
  print_cost(source->bytes_read(), size_on_disk(*source), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return 0;
}

}  // namespace

void add_statistics(CLI::App& app, Context& context) {
  const auto options = std::make_shared<StatisticsOptions>();
  CLI::App* verb = app.add_subcommand("statistics", "Collect what error feedback needs to know of a text");
  verb->group("Measure")->footer("quern statistics DeepSeek-V4-Flash --calib-text calib.txt -o stats");
  verb->add_option("MODEL", options->model, "checkpoint folder or (first) GGUF file")->required()->group("Input");
  verb->add_option("--sequential", options->build, "follow a build: a mix or recipe")->type_name("RECIPE")->group("Input");
  verb->add_option("--calib-text", options->evaluation.text, "text to run")->type_name("FILE")->required()->group("Text");
  verb->add_option("--calib-tokens", options->tokens, "use the first N; default 131072")
      ->type_name("N")
      ->check(at_least_one)
      ->group("Text");
  verb->add_option("--ctx", options->evaluation.ctx, "tokens per chunk, 4 or more; default 512")->type_name("N")->group("Text");
  verb->add_option("-o,--output", options->output, "where statistics.json goes")->type_name("FOLDER")->required()->group("Output");
  verb->add_flag("--force", options->force, "replace what is there")->group("Output");
  verb->add_option("--threads", options->evaluation.threads, "1 or more; default all of them")
      ->type_name("N")
      ->check(at_least_one)
      ->group("Run");
  verb->add_option("--memory", options->evaluation.memory, "budget, as 6GiB; default up to 8GiB")
      ->type_name("SIZE")
      ->check(a_size)
      ->group("Run");
  verb->add_flag("--dry-run", options->evaluation.dry_run, "show the plan only")->group("Run");
  verb->add_flag("--json", options->evaluation.json, "results as JSON")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_statistics(*options); }; });
}

}  // namespace quern::cli
