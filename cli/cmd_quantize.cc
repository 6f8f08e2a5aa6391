#include <memory>

#include "cli/build.h"
#include "cli/progress_bar.h"
#include "formats/base/model_folder.h"
#include "formats/base/parallel.h"

namespace quern::cli {
namespace {

struct QuantizeOptions {
  std::string input;
  std::string output_file;
  OutputOptions output;
  RunOptions run;
};

int run_quantize(const QuantizeOptions& options) {
  const ThreadLimit limit(options.run.threads);
  if (std::filesystem::is_directory(options.input)) {
    const std::string name = first_name(std::filesystem::path(options.input), ".gguf");
    throw Error(ErrorKind::kUsage, "'" + printable(options.input) + "' is a folder; quantize reads a GGUF file, " +
                                       (name.empty() ? "convert reads checkpoints" : "as '" + printable(name) + "' in it"));
  }
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
  verb->callback([options, &context] { context.command = [options] { return run_quantize(*options); }; });
}

}  // namespace quern::cli
