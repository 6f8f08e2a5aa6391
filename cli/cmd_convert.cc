#include <iostream>
#include <memory>

#include "cli/build.h"
#include "cli/progress_bar.h"
#include "convert/parts/part.h"
#include "convert/plan/plan_json.h"
#include "formats/base/file.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "formats/base/version.h"

namespace quern::cli {
namespace {

struct ConvertOptions {
  std::string model;
  std::string folder;
  OutputOptions output;
  RunOptions run;
  std::string name, chat_template, license;
  std::vector<std::string> base_models;
  bool mtp = false;
  std::string plan_out, plan, part;
};

ModelOptions model_options(const ConvertOptions& options) {
  ModelOptions model;
  if (!options.name.empty()) model.name = options.name;
  if (!options.chat_template.empty()) model.chat_template = options.chat_template;
  if (!options.license.empty()) model.license = options.license;
  model.base_models = options.base_models;
  model.mtp = options.mtp;
  return model;
}

// "K/N"
std::pair<int64_t, int64_t> parse_part(const std::string& text) {
  long long k = 0, n = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%lld/%lld%c", &k, &n, &rest) != 2 || k < 1 || n < k || n > 99999) {
    throw Error(ErrorKind::kUsage, "--part: '" + printable(text) + "' is not K/N with K from 1 to N, as 2/8");
  }
  return {k, n};
}

int run_new_plan(const ConvertOptions& options) {
  PlanOptions plan_options;
  plan_options.output = options.folder;
  plan_options.mtp = options.mtp;
  set_plan_options(options.output, options.run, plan_options);
  if (options.model.empty()) throw Error(ErrorKind::kUsage, "no model given; name a checkpoint folder or a GGUF file");
  OpenedBuild opened = open_build(build_options(options.model, model_options(options), plan_options, options.output, options.run));
  if (const int code = report_opened(options.output.imatrix, opened); code != 0) return code;

  const Plan& plan = *opened.plan;
  announce(*opened.source, plan, plan.folder.string());
  if (!options.plan_out.empty()) {
    if (options.output.feedback.live())
      throw Error(ErrorKind::kUsage, "a plan needs statistics that stay: collect them with 'quern statistics' and give --statistics");
    write_file_atomically(options.plan_out, plan_to_json(plan),
                          options.run.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse);
    std::clog << "quern: wrote " << printable(options.plan_out) << '\n';
  }
  if (options.run.dry_run || !options.plan_out.empty()) {
    print_plan(plan, thread_limit(), options.run.json);
    return 0;
  }
  ProgressBar bar;
  print_report(run_build(opened, plan, bar), options.run.json);
  return 0;
}

Plan load_plan(const ConvertOptions& options) {
  Plan plan = read_plan(options.plan);
  if (plan.quern_version != kVersion) {
    throw Error(ErrorKind::kUnsupported, "the plan was made by quern " + printable(plan.quern_version) + ", this is " + kVersion)
        .file(options.plan);
  }
  if (!options.model.empty()) plan.model = options.model;
  if (!options.folder.empty()) plan.folder = options.folder;
  if (!options.output.imatrix.empty()) plan.imatrix_path = options.output.imatrix;
  if (!options.output.feedback.statistics.empty()) plan.statistics_path = options.output.feedback.statistics;
  if (!options.run.memory.empty()) plan.memory_bytes = parse_size(options.run.memory);
  if (!options.run.sync_size.empty()) plan.sync_bytes = parse_size(options.run.sync_size);
  plan.force = plan.force || options.run.force;
  return plan;
}

int run_saved_plan(const ConvertOptions& options) {
  if (!options.output.skip.empty()) throw Error(ErrorKind::kUsage, "--skip belongs to the making of a plan: give it with --plan-out");
  const Plan plan = load_plan(options);
  OpenedBuild opened = open_planned(plan, options.output.strict, !options.part.empty());
  if (const int code = report_opened(plan.imatrix_path, opened); code != 0) return code;
  ProgressBar bar;
  if (options.part.empty()) {
    announce(*opened.source, plan, plan.folder.string());
    print_report(run_build(opened, plan, bar), options.run.json);
    return 0;
  }
  const auto [k, n] = parse_part(options.part);
  announce(*opened.source, plan, plan.folder.string() + " (part " + std::to_string(k) + " of " + std::to_string(n) + ")");
  const PartReport report = run_part(*opened.source, plan, k, n, plan.folder, bar, opened.calibration);
  if (options.run.json) {
    std::cout << part_report_to_json(report, k, n);
  } else {
    std::cout << report.index.string() << '\n' << report.data.string() << '\n';
  }
  return 0;
}

int run_convert(const ConvertOptions& options) {
  const ThreadLimit limit(options.run.threads);
  if (options.plan.empty() && !options.part.empty()) throw Error(ErrorKind::kUsage, "--part needs --plan");
  return options.plan.empty() ? run_new_plan(options) : run_saved_plan(options);
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  const auto options = std::make_shared<ConvertOptions>();
  CLI::App* verb = app.add_subcommand("convert", "Write GGUF files, all types from one read of the model");
  verb->group("Build")->footer("quern convert DeepSeek-V4-Flash -o out --type Q4_K_M --type Q8_0");
  verb->add_option("MODEL", options->model, "checkpoint folder, or a GGUF file")->group("Input");
  verb->add_flag("--mtp", options->mtp, "the draft (MTP) layers as their own file")->group("Input");
  add_skip_option(*verb, options->output.skip);
  verb->add_option("-o,--output", options->folder, "where the files go; made if absent")->type_name("FOLDER")->group("Output");
  add_output_options(*verb, options->output);
  verb->add_option("--name", options->name, "of the model; default: as README.md has it")->type_name("NAME")->group("About");
  verb->add_option("--chat-template", options->chat_template, "Jinja text; default: the model's own")->type_name("FILE")->group("");
  verb->add_option("--license", options->license, "id of the licence, as the hub knows it")->type_name("ID")->group("");
  verb->add_option("--base-model", options->base_models, "hub id of a model that it was made from")
      ->type_name("ID")
      ->allow_extra_args(false)
      ->group("");
  add_run_options(*verb, options->run);
  verb->add_option("--plan-out", options->plan_out, "save the plan, write nothing else")->type_name("FILE")->group("Parts");
  verb->add_option("--plan", options->plan, "run a saved plan")->type_name("FILE")->group("Parts");
  verb->add_option("--part", options->part, "only part K of N; see 'quern merge'")->type_name("K/N")->group("Parts");
  verb->callback([options, &context] {
    context.command = [options] { return run_convert(*options); };
    context.goes_on = options->part.empty() && !options->run.dry_run;
  });
}

}  // namespace quern::cli
