#include <memory>

#include "cli/build.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/gguf/gguf_folder.h"

namespace quern::cli {
namespace {

struct QuantizeOptions {
  std::string input;
  std::string output_file;
  OutputOptions output;
  RunOptions run;
};

[[noreturn]] void refuse_folder(const std::string& path) {
  if (gguf::models_in(std::filesystem::path(path)).empty()) {
    throw Error(ErrorKind::kUsage, "'" + printable(path) + "' is a folder; quantize reads a GGUF file, convert reads checkpoints");
  }
  try {
    gguf::refuse_folder(std::filesystem::path(path));
  } catch (Error& error) {
    throw error.file(path);
  }
}

int run_quantize(const QuantizeOptions& options) {
  const ThreadLimit limit(options.run.threads);
  if (std::filesystem::is_directory(options.input)) refuse_folder(options.input);
  PlanOptions plan_options;
  plan_options.output = options.output_file;
  plan_options.single_file = true;
  set_plan_options(options.output, options.run, plan_options);
  OpenedBuild opened = open_build(build_options(options.input, {}, plan_options, options.output, options.run));
  if (const int code = report_opened(options.output.imatrix, opened); code != 0) return code;

  announce(*opened.source, *opened.plan, options.output_file);
  if (options.run.dry_run) {
    print_plan(*opened.plan, thread_limit(), options.run.json);
    return 0;
  }
  ProgressBar bar;
  print_report(run_build(opened, *opened.plan, bar), options.run.json);
  return 0;
}

}  // namespace

void add_quantize(CLI::App& app, Context& context) {
  const auto options = std::make_shared<QuantizeOptions>();
  CLI::App* verb = app.add_subcommand("quantize", "Write a GGUF file in another type");
  verb->group("Build")->footer("quern quantize model-BF16.gguf -o model-Q4_K_M.gguf --type Q4_K_M");
  verb->add_option("IN.gguf", options->input, "GGUF file, or the first of a split one")->required()->group("Input");
  verb->add_option("-o,--output", options->output_file, "the file to write")->type_name("OUT.gguf")->required()->group("Output");
  add_output_options(*verb, options->output);
  add_run_options(*verb, options->run);
  verb->callback([options, &context] {
    context.command = [options] { return run_quantize(*options); };
    context.goes_on = !options->run.dry_run;
  });
}

}  // namespace quern::cli
