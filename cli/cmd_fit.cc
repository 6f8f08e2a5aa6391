#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/build.h"
#include "cli/evaluation.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "formats/model/model_facts.h"
#include "verify/fit/fit_job.h"

namespace quern::cli {
namespace {

namespace fs = std::filesystem;

struct FitVerb {
  std::string model;
  std::vector<std::string> sizes;
  std::string output;
  std::string calib_text, check_text;
  std::string imatrix, statistics;
  int64_t ctx = 512;
  int64_t chunks = 16, check_chunks = 64;
  int64_t probes = 128;
  int rounds = 1;
  std::string cache;
  int threads = 0;
  std::string memory;
  bool force = false, json = false;
};

fs::path cache_folder(const FitVerb& options) {
  if (!options.cache.empty()) return options.cache;
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder != nullptr && *folder != '\0') return fs::path(folder) / "quern";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') return fs::path(home) / ".cache" / "quern";
  return {};
}

// "r.json", or "r-96GB.json" when there are several sizes.
fs::path output_path(const FitVerb& options, size_t number) {
  const fs::path path = options.output;
  if (options.sizes.size() == 1) return path;
  return path.parent_path() / (path.stem().string() + "-" + options.sizes[number] + path.extension().string());
}

void print_table(const std::vector<FittedSize>& sizes) {
  std::vector<std::vector<std::string>> table = {{"build", "size", "bytes", "expected KL", "measured KL", "KL on check text"}};
  for (const auto& [size, r] : sizes) {
    const auto row = [&](const FitBuild& build, bool best) {
      table.push_back({(best ? "* " : "  ") + build.name, format_size(build.size_bytes), std::to_string(build.size_bytes),
                       number("%.6f", build.expected), build.measured.value > 0 ? with_error("%.6f", build.measured) : "",
                       with_error("%.6f", build.checked)});
    };
    table.push_back({"at most " + std::to_string(r.limit_bytes) + " bytes: " + size.recipe.string()});
    row(r.proposal, !r.winner);
    for (size_t i = 0; i < r.rivals.size(); ++i) row(r.rivals[i], r.winner == i);
  }
  for (auto& line : table) line.resize(table.front().size());
  std::cout << format_table(table);
}

void check_usage(const FitVerb& options) {
  const auto check = [](const char* name, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return;
    throw Error(ErrorKind::kUsage, std::string(name) + " " + std::to_string(value) + " is not between " + std::to_string(least) + " and " +
                                       std::to_string(most));
  };
  check("--ctx", options.ctx, 16, 1 << 20);
  check("--chunks", options.chunks, 1, 1 << 20);
  check("--check-chunks", options.check_chunks, 1, 1 << 20);
  check("--probes", options.probes, 1, 1 << 20);
  check("--rounds", options.rounds, 0, 10);
}

FitJobOptions job_options(const FitVerb& options) {
  FitJobOptions job{.model = options.model,
                    .sizes = {},
                    .calib_text = options.calib_text,
                    .check_text = options.check_text,
                    .ctx = options.ctx,
                    .chunks = options.chunks,
                    .check_chunks = options.check_chunks,
                    .probes = options.probes,
                    .rounds = options.rounds,
                    .cache = cache_folder(options),
                    .overwrite = options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse,
                    .eval = {}};
  if (options.memory.empty()) {
    job.eval.memory_bytes = default_evaluation_memory();
  } else {
    job.eval.memory_bytes = parse_size(options.memory);
  }
  for (size_t s = 0; s < options.sizes.size(); ++s) {
    job.sizes.push_back({options.sizes[s], parse_size(options.sizes[s]), output_path(options, s)});
  }
  return job;
}

int run_fit(const FitVerb& options) {
  check_usage(options);
  const auto start = std::chrono::steady_clock::now();
  const ThreadLimit limit(options.threads);
  const FitJobOptions job_of = job_options(options);
  const std::unique_ptr<ModelSource> source = open_model(options.model);
  const Calibration calibration{load_importance(options.imatrix, false, *source), open_feedback(options.statistics, source->tensors())};
  print_findings(options.imatrix, calibration.importance);
  FitJob job(*source, calibration, job_of);
  std::clog << "quern: reading " << printable(options.model) << " (" << format_size(size_on_disk(*source)) << "); measuring on "
            << job.n_measuring() << " chunks of " << options.ctx << ", checking on " << job.n_checking() << '\n';
  for (const FitSize& size : job_of.sizes) {
    std::clog << "quern: writing " << printable(size.recipe.string()) << '\n';
    check_output_path(size.recipe, job_of.overwrite);
  }
  ProgressBar bar;
  const std::vector<FittedSize> fitted = job.run(bar);
  if (options.json) {
    std::cout << fit_to_json(fitted);
  } else {
    print_table(fitted);
  }
  print_cost(source->bytes_read(), size_on_disk(*source), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return 0;
}

}  // namespace

void add_fit(CLI::App& app, Context& context) {
  const auto options = std::make_shared<FitVerb>();
  CLI::App* verb = app.add_subcommand("fit", "Find the best types for a file of a given size");
  verb->group("Choose")->footer("quern fit V4-Flash --size 96GB --calib-text c.txt -o r.json");
  verb->add_option("MODEL", options->model, "checkpoint folder or GGUF file")->required()->group("Input");
  verb->add_option("--imatrix", options->imatrix, "importance matrix, as convert will use")->type_name("FILE")->group("Input");
  verb->add_option("--statistics", options->statistics, "for error feedback, as convert will use")->type_name("FOLDER")->group("Input");
  verb->add_option("--calib-text", options->calib_text, "text to measure on")->type_name("FILE")->required()->group("Text");
  verb->add_option("--check-text", options->check_text, "text to judge on; default its last fifth")->type_name("FILE")->group("Text");
  verb->add_option("--ctx", options->ctx, "tokens per chunk; default 512")->type_name("N")->group("Text");
  verb->add_option("--chunks", options->chunks, "to measure on, spread evenly; default 16")->type_name("N")->group("Text");
  verb->add_option("--check-chunks", options->check_chunks, "to judge on; default 64")->type_name("N")->group("Text");
  verb->add_option("--size", options->sizes, "of the file: 96GB, 96GiB, bytes; repeatable")
      ->type_name("SIZE")
      ->check(a_size)
      ->required()
      ->allow_extra_args(false)
      ->group("Search");
  verb->add_option("--probes", options->probes, "builds measured at most; default 128")->type_name("N")->group("Search");
  verb->add_option("--rounds", options->rounds, "0 to 10 refinements per size; default 1")->type_name("N")->group("Search");
  verb->add_option("--cache", options->cache, "of measurements; default ~/.cache/quern")->type_name("DIR")->group("Search");
  verb->add_option("-o,--output", options->output, "the recipe; several sizes: RECIPE-SIZE.json")
      ->type_name("RECIPE.json")
      ->required()
      ->group("Output");
  verb->add_flag("--force", options->force, "replace existing files")->group("Output");
  verb->add_flag("--json", options->json, "results as JSON")->group("Output");
  verb->add_option("--threads", options->threads, "1 or more; default all of them")->type_name("N")->check(at_least_one)->group("Run");
  verb->add_option("--memory", options->memory, "budget, as 6GiB; default up to 8GiB")->type_name("SIZE")->check(a_size)->group("Run");
  verb->callback([options, &context] {
    context.command = [options] { return run_fit(*options); };
    context.goes_on = true;
  });
}

}  // namespace quern::cli
