#include <iostream>
#include <memory>
#include <optional>

#include "cli/build.h"
#include "cli/progress_bar.h"
#include "formats/base/counted.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "verify/drift/drift_job.h"
#include "verify/publish/preparation.h"
#include "verify/publish/publication.h"

namespace quern::cli {
namespace {

constexpr const char* kDefaultSplit = "45GB";

struct PublishOptions {
  std::string model, folder;
  OutputOptions output;
  RunOptions run;
  std::vector<std::string> sizes;
  std::string eval_text, key, base_model, revision, license, name, quantized_by, chat_template;
  int64_t ctx = 512, chunks = 64;
};

ModelOptions model_options(const PublishOptions& options) {
  ModelOptions model;
  if (!options.name.empty()) model.name = options.name;
  if (!options.license.empty()) model.license = options.license;
  if (!options.base_model.empty()) model.base_models = {options.base_model};
  if (!options.chat_template.empty()) model.chat_template = options.chat_template;
  return model;
}

PublicationOptions publication_options(const PublishOptions& options) {
  PublicationOptions publication;
  publication.imatrix = options.output.imatrix;
  publication.calib_text = options.output.feedback.text;
  publication.eval_text = options.eval_text;
  publication.eval_ctx = options.ctx;
  publication.eval_chunks = options.chunks;
  publication.key = options.key;
  publication.base_model = options.base_model;
  publication.revision = options.revision;
  publication.license = options.license;
  publication.quantized_by = options.quantized_by;
  publication.chat_template = options.chat_template;
  if (!options.run.memory.empty()) publication.evaluation_memory_bytes = parse_size(options.run.memory);
  publication.force = options.run.force;
  return publication;
}

PreparationOptions preparation_options(const PublishOptions& options) {
  PreparationOptions preparation;
  preparation.model = options.model;
  preparation.about = model_options(options);
  preparation.folder = options.folder;
  preparation.sizes = options.sizes;
  preparation.imatrix = options.output.imatrix;
  preparation.strict = options.output.strict;
  preparation.feedback = options.output.feedback;
  if (!options.run.memory.empty()) preparation.memory_bytes = parse_size(options.run.memory);
  return preparation;
}

PlanOptions plan_options(const PublishOptions& options, OutputOptions output) {
  PlanOptions plan;
  plan.output = options.folder;
  if (output.split_size.empty()) output.split_size = kDefaultSplit;
  set_plan_options(output, options.run, plan);
  return plan;
}

void announce_preparation(const Preparation& preparation) {
  for (const std::string& step : preparation.steps()) std::clog << "quern: first " << step << '\n';
}

void print_sizes(const Preparation& preparation) {
  for (const FitSize& size : preparation.sizes()) {
    std::cout << size.recipe.stem().string() << "  at most " << size.limit_bytes << " bytes\n";
  }
}

// What will be done beside the builds, a line each on stderr.
void announce_steps(const PublishOptions& options, const Preparation& preparation, const ModelSource& source) {
  announce_preparation(preparation);
  if (options.eval_text.empty()) return;
  const ChunkedText text = load_text(source, {.file = options.eval_text, .ctx = options.ctx, .max_chunks = options.chunks});
  EvalOptions eval;
  eval.memory_bytes = options.run.memory.empty() ? default_evaluation_memory() : parse_size(options.run.memory);
  const EvalPlan plan = plan_original(source, text, eval);
  std::clog << "quern: then every build is measured on " << counted(text.chunks.size(), "chunk") << " of " << options.ctx << " tokens of "
            << printable(options.eval_text) << ", in one pass each and one of the original; " << format_size(plan.total_bytes())
            << " of memory\n";
}

int show_plan(const PublishOptions& options, const Preparation& preparation) {
  if (options.output.types.empty() && options.output.recipes.empty() && !preparation.sizes().empty()) {
    announce_steps(options, preparation, *open_model(options.model, model_options(options)));
    print_sizes(preparation);
    return 0;
  }
  OutputOptions output = options.output;
  if (output.feedback.mode == "off") output.feedback = {};  // its text is for the importance matrix, which is not there yet
  const OpenedBuild opened =
      open_publication(build_options(options.model, model_options(options), plan_options(options, output), output, options.run));
  if (const int code = report_opened(output.imatrix, opened); code != 0) return code;
  announce(*opened.source, *opened.plan, options.folder);
  announce_steps(options, preparation, *opened.source);
  print_plan(*opened.plan, thread_limit(), options.run.json);
  if (!options.run.json) print_sizes(preparation);
  return 0;
}

void print_result(const PublishOptions& options, const Publication& publication) {
  const PublicationResult result = publication.result();
  if (options.run.json) {
    std::cout << publication_to_json(result);
    return;
  }
  std::vector<std::vector<std::string>> table = {{"build", "files", "size", "mean KL", "perplexity"}};
  for (const PublishedBuild& build : result.builds) {
    table.push_back({build.label, std::to_string(build.files.size()), format_size(build.size_bytes)});
    if (!build.drift) continue;
    table.back().push_back(number("%.6f", build.drift->kl.value));
    table.back().push_back(number("%.4f", build.drift->ppl.value));
  }
  if (result.drift_text.empty()) table.front().resize(3);
  std::cout << format_table(table);
  std::clog << "quern: " << printable(options.folder) << " is complete: " << counted(result.files.size(), "file")
            << (result.key_id.empty() ? ", not signed" : ", signed by key " + result.key_id.substr(0, 16)) << '\n'
            << "quern: next: hf upload OWNER/NAME " << printable(options.folder) << '\n';
}

int run_publish(PublishOptions options) {
  const ThreadLimit limit(options.run.threads);
  check_card(publication_options(options));
  Preparation preparation(preparation_options(options));
  if (options.run.dry_run) return show_plan(options, preparation);
  PublicationOptions publication_of = publication_options(options);
  ProgressBar bar;
  if (preparation.is_needed()) {
    check_publication_folder(options.folder, options.run.force);
    announce_preparation(preparation);
    preparation.run(bar);
  }
  options.output.imatrix = publication_of.imatrix = preparation.imatrix();
  options.output.feedback = preparation.feedback();
  for (const std::filesystem::path& recipe : preparation.recipes()) {
    options.output.recipes.push_back(recipe);
    publication_of.recipes.push_back(recipe);
  }
  OpenedBuild opened = open_publication(
      build_options(options.model, model_options(options), plan_options(options, options.output), options.output, options.run));
  if (const int code = report_opened(options.output.imatrix, opened); code != 0) return code;
  announce(*opened.source, *opened.plan, options.folder);
  Publication publication(publication_of, opened);
  if (report_problems(publication.begin(bar)) != 0) throw Error(ErrorKind::kIo, "nothing was built");
  if (const std::optional<ConvertReport> report = publication.build(bar); report && !options.run.json) print_report(*report, false);
  publication.finish(bar);
  print_result(options, publication);
  return 0;
}

}  // namespace

void add_publish(CLI::App& app, Context& context) {
  const auto options = std::make_shared<PublishOptions>();
  CLI::App* verb = app.add_subcommand("publish", "Make a folder ready to upload: builds, records, card");
  verb->group("Publish")->footer("quern publish V3 -o repo --type Q4_K_M --calib-text c.txt --sign k.pem");
  const auto add = [verb](const char* name, auto& value, const char* what, const char* type, const char* group) {
    return verb->add_option(name, value, what)->type_name(type)->group(group);
  };
  const auto add_list = [verb](const char* name, auto& value, const char* what, const char* type) {
    return verb->add_option(name, value, what)->type_name(type)->allow_extra_args(false)->group("Output");
  };
  verb->add_option("MODEL", options->model, "checkpoint folder, or a GGUF file")->required()->group("Input");
  add_skip_option(*verb, options->output.skip);
  add("--eval-text", options->eval_text, "measure on it what each build lost", "FILE", "Input");
  add("--chunks", options->chunks, "of it, of 512 tokens each; default 64", "N", "Input")->check(at_least_one);
  add("--ctx", options->ctx, "tokens per chunk; default 512", "N", "")->check(at_least_one);
  verb->add_option("-o,--output", options->folder, "begun or complete: gets what it lacks")
      ->type_name("FOLDER")
      ->required()
      ->group("Output");
  add_list("--type", options->output.types, "Q4_K_M, Q8_0, lossless ...", "TYPE");
  add_list("--size", options->sizes, "the best types for a file of 96GB", "SIZE")->check(a_size);
  add_list("--recipe", options->output.recipes, "recipe file or name; a build each", "R");
  add("--tensor-type", options->output.tensor_types, "another type for some; first match wins", "REGEX=T", "")->allow_extra_args(false);
  add("--split-size", options->output.split_size, "tensor bytes per file; default 45GB", "SIZE", "")->check(a_size);
  add("--sign", options->key, "private key, from 'quern keygen'", "KEY.pem", "Output");
  add_feedback_options(*verb, options->output.feedback, "Quality");
  CLI::Option* imatrix = add("--imatrix", options->output.imatrix, "importance matrix, published too", "FILE", "Quality");
  add_effort_option(*verb, options->output.effort, "");
  verb->add_flag("--strict", options->output.strict, "refuse an importance matrix with gaps")->needs(imatrix)->group("");
  add("--base-model", options->base_model, "hub id of the original", "ID", "About");
  add("--revision", options->revision, "of the original on the hub", "SHA", "About");
  add("--name", options->name, "of the model; default: as README.md has it", "NAME", "About");
  add("--license", options->license, "id of the licence, as the hub knows it", "ID", "");
  add("--chat-template", options->chat_template, "Jinja text; default: the model's own", "FILE", "");
  add("--quantized-by", options->quantized_by, "your name on the hub", "NAME", "");
  add_run_options(*verb, options->run);
  verb->callback([options, &context] {
    context.command = [options] { return run_publish(*options); };
    context.goes_on = !options->run.dry_run;
  });
}

}  // namespace quern::cli
