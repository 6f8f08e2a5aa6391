#include <algorithm>
#include <iostream>
#include <memory>

#include "cli/build.h"
#include "cli/progress_bar.h"
#include "convert/fill/destination.h"
#include "convert/parts/part.h"
#include "convert/plan/plan_json.h"
#include "formats/base/resources.h"

namespace quern::cli {
namespace {

struct MergeOptions {
  std::string plan;
  std::string folder;
  std::vector<std::string> parts;
  bool force = false;
  bool json = false;
};

// Shards of a GGUF file are no parts of a plan, but "merge" is the word that people look for.
void refuse_shards(const MergeOptions& options) {
  const auto is_gguf = [](const std::string& name) { return name.ends_with(".gguf"); };
  if (!is_gguf(options.plan) && std::ranges::none_of(options.parts, is_gguf)) return;
  throw Error(ErrorKind::kUsage,
              "merge puts the parts of a plan together. GGUF shards are one model already, of which the first is given; for one file of "
              "them: quern quantize FIRST.gguf -o OUT.gguf --type lossless");
}

int run_merge(const MergeOptions& options) {
  refuse_shards(options);
  Plan plan = read_plan(options.plan);
  plan.folder = options.folder;
  plan.force = options.force || merge_was_interrupted(plan);
  if (const int code = report_problems(check_destination(plan)); code != 0) return code;
  std::clog << "quern: reading " << options.parts.size() << " parts of " << printable(options.plan) << '\n'
            << "quern: writing " << printable(options.folder) << ": " << format_size(plan.output_bytes()) << '\n';
  const std::vector<std::filesystem::path> parts(options.parts.begin(), options.parts.end());
  ProgressBar bar;
  print_report(merge_parts(plan, parts, bar), options.json);
  return 0;
}

}  // namespace

void add_merge(CLI::App& app, Context& context) {
  const auto options = std::make_shared<MergeOptions>();
  CLI::App* verb = app.add_subcommand("merge", "Put the parts of a plan together");
  verb->group("Build")->footer("quern merge plan.json -o out parts/*.json");
  verb->add_option("PLAN.json", options->plan, "from 'quern convert --plan-out'")->required()->group("Input");
  verb->add_option("PART.json", options->parts, "all that 'quern convert --plan --part' made")->required()->group("Input");
  verb->add_option("-o,--output", options->folder, "where the files go; made if absent")->type_name("FOLDER")->required()->group("Output");
  verb->add_flag("--force", options->force, "replace existing files")->group("Run");
  verb->add_flag("--json", options->json, "results as JSON on stdout")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_merge(*options); }; });
}

}  // namespace quern::cli
