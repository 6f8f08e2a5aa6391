#include <iostream>
#include <memory>
#include <optional>

#include "cli/build.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "verify/publish/publication.h"
#include "verify/records/published.h"

namespace quern::cli {
namespace {

constexpr const char* kDefaultSplit = "45GB";

struct PublishOptions {
  std::string model, folder;
  OutputOptions output;
  RunOptions run;
  std::string eval_text, key, base_model, revision, license, name, quantized_by;
};

ModelOptions model_options(const PublishOptions& options) {
  ModelOptions model;
  if (!options.name.empty()) model.name = options.name;
  if (!options.license.empty()) model.license = options.license;
  if (!options.base_model.empty()) model.base_models = {options.base_model};
  return model;
}

PublicationOptions publication_options(const PublishOptions& options) {
  PublicationOptions publication;
  publication.imatrix = options.output.imatrix;
  publication.calib_text = options.output.feedback.text;
  publication.eval_text = options.eval_text;
  publication.key = options.key;
  publication.base_model = options.base_model;
  publication.revision = options.revision;
  publication.license = options.license;
  publication.quantized_by = options.quantized_by;
  if (!options.run.memory.empty()) publication.evaluation_memory_bytes = parse_size(options.run.memory);
  publication.force = options.run.force;
  return publication;
}

int run_publish(const PublishOptions& options) {
  const ThreadLimit limit(options.run.threads);
  check_card(publication_options(options));
  PlanOptions plan_options;
  plan_options.output = options.folder;
  OutputOptions output = options.output;
  if (output.split_size.empty()) output.split_size = kDefaultSplit;
  set_plan_options(output, options.run, plan_options);
  OpenedBuild opened = open_publication(build_options(options.model, model_options(options), plan_options, output, options.run));
  if (const int code = report_opened(output.imatrix, opened); code != 0) return code;
  const Plan& plan = *opened.plan;
  announce(*opened.source, plan, options.folder);
  if (options.run.dry_run) {
    print_plan(plan, thread_limit(), options.run.json);
    return 0;
  }
  ProgressBar bar;
  Publication publication(publication_options(options), opened);
  if (report_problems(publication.begin(bar)) != 0) throw Error(ErrorKind::kIo, "nothing was built");
  if (const std::optional<ConvertReport> report = publication.build(bar)) print_report(*report, false);
  publication.finish(bar);
  for (const std::string& name : list_published_files(plan.folder)) std::cout << name << '\n';
  return 0;
}

}  // namespace

void add_publish(CLI::App& app, Context& context) {
  const auto options = std::make_shared<PublishOptions>();
  CLI::App* verb = app.add_subcommand("publish", "Make a folder ready to upload: builds, records, card");
  verb->group("Publish")->footer("quern publish DeepSeek-V3 -o repo --type Q4_K_M --sign release.pem");
  const auto add = [verb](const char* name, auto& value, const char* what, const char* type, const char* group) {
    return verb->add_option(name, value, what)->type_name(type)->group(group);
  };
  verb->add_option("MODEL", options->model, "checkpoint folder, or a GGUF file")->required()->group("Input");
  add_skip_option(*verb, options->output.skip);
  add("--eval-text", options->eval_text, "measure what each build lost on this text", "FILE", "Input");
  add("--calib-text", options->output.feedback.text, "of imatrix and feedback; its sum is published", "FILE", "Quality");
  verb->add_option("-o,--output", options->folder, "the folder; a begun one is continued")
      ->type_name("FOLDER")
      ->required()
      ->group("Output");
  verb->add_option("--type", options->output.types, "Q4_K_M, Q8_0, lossless ...")
      ->type_name("TYPE")
      ->allow_extra_args(false)
      ->group("Output");
  verb->add_option("--recipe", options->output.recipes, "recipe file or name; a build each")
      ->type_name("R")
      ->allow_extra_args(false)
      ->group("Output");
  verb->add_option("--tensor-type", options->output.tensor_types, "another type for some; first match wins")
      ->type_name("REGEX=T")
      ->allow_extra_args(false)
      ->group("Output");
  add("--imatrix", options->output.imatrix, "importance matrix, published with the builds", "FILE", "Quality");
  add_feedback_options(*verb, options->output.feedback, "Quality");
  add("--split-size", options->output.split_size, "tensor bytes per file; default 45GB", "SIZE", "Output")->check(a_size);
  add("--sign", options->key, "private key, from 'quern keygen'", "KEY.pem", "Output");
  add("--base-model", options->base_model, "hub id of the original", "ID", "About");
  add("--revision", options->revision, "of the original on the hub", "SHA", "About");
  add("--name", options->name, "default: from README.md or the folder", "NAME", "About");
  add("--license", options->license, "as apache-2.0; default: from README.md", "ID", "About");
  add("--quantized-by", options->quantized_by, "your name on the hub", "NAME", "About");
  add_run_options(*verb, options->run);
  verb->callback([options, &context] { context.command = [options] { return run_publish(*options); }; });
}

}  // namespace quern::cli
