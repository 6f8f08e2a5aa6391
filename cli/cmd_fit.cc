#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/build.h"
#include "cli/cli.h"
#include "cli/evaluation.h"
#include "cli/feedback.h"
#include "cli/progress_bar.h"
#include "cli/simulation.h"
#include "convert/plan/plan_checks.h"
#include "formats/base/file.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "formats/base/sha256.h"
#include "quantize/plain/encode.h"
#include "verify/fit/fit.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;
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
  bool dry_run = false, force = false, json = false;

  EvaluationOptions evaluation(const std::string& text) const {
    EvaluationOptions options;
    options.text = text;
    options.ctx = ctx;
    options.threads = threads;
    options.memory = memory;
    return options;
  }
};

// n of the chunks, spread evenly.
std::vector<Sequence> spread(std::span<const Sequence> chunks, int64_t n) {
  std::vector<Sequence> chosen;
  const int64_t n_chunks = std::ssize(chunks);
  n = std::min(n, n_chunks);
  for (int64_t i = 0; i < n; ++i) chosen.push_back(chunks[static_cast<size_t>((2 * i + 1) * n_chunks / (2 * n))]);
  return chosen;
}

struct Texts {
  std::vector<Sequence> measuring, checking;
};

Texts load_texts(const ModelSource& source, const FitVerb& options) {
  const std::vector<Sequence> calib = load_chunks(source, options.evaluation(options.calib_text)).chunks;
  std::span<const Sequence> measuring = calib, checking;
  std::vector<Sequence> check;
  if (options.check_text.empty()) {
    const size_t n = std::max<size_t>(calib.size() / 5, 1);
    measuring = measuring.first(calib.size() - n);
    checking = std::span(calib).last(n);
  } else {
    check = load_chunks(source, options.evaluation(options.check_text)).chunks;
    checking = check;
  }
  if (measuring.empty()) throw Error(ErrorKind::kUsage, "the calibration text is too short to be divided");
  return {spread(measuring, options.chunks), spread(checking, options.check_chunks)};
}

// What sensitivities depend on.
std::string measurement_key(const ModelSource& source, const FitVerb& options, const Texts& texts, const Importance* importance,
                            const FeedbackEncoder* feedback) {
  Sha256 hash;
  const auto add = [&](const std::string& text) {
    hash.update(std::as_bytes(std::span(text)));
    hash.update(std::as_bytes(std::span("\n", 1)));
  };
  for (const SourceFile& file : source.files()) add(fingerprint(file.path));
  for (const Sequence& sequence : texts.measuring) hash.update(std::as_bytes(std::span(sequence.tokens)));
  add(std::to_string(options.ctx) + " " + std::to_string(options.probes));
  add(importance == nullptr ? "" : importance->record().sha256);
  add(feedback == nullptr ? "" : feedback->record().sha256);
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    for (const DType type : candidate_types(source, i)) add(std::string(name_of(type)) + " " + std::to_string(encoder_revision(type)));
  }
  return hash.finish_hex();
}

fs::path cache_folder(const FitVerb& options) {
  if (!options.cache.empty()) return options.cache;
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder != nullptr && *folder != '\0') return fs::path(folder) / "quern";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') return fs::path(home) / ".cache" / "quern";
  return {};
}

std::optional<Sensitivities> read_cache(const fs::path& path, const ModelSource& source, const std::string& key) {
  constexpr uint64_t kMaxCacheBytes = uint64_t{1} << 28;
  std::error_code ignored;
  if (path.empty() || !fs::exists(path, ignored)) return std::nullopt;
  try {
    return sensitivities_from_json(read_text_file(path, kMaxCacheBytes), source, key);
  } catch (const Error& error) {
    print_warning(path.string() + ": " + error.message() + "; measuring again");
    return std::nullopt;
  }
}

void write_cache(const fs::path& path, const Sensitivities& sensitivities, const ModelSource& source, const std::string& key) {
  if (path.empty()) return;
  try {
    make_folder(path.parent_path());
    write_file_atomically(path, sensitivities_to_json(sensitivities, source, key), OutputFile::Overwrite::kAllow);
  } catch (const std::exception& error) {
    print_warning("the sensitivities cannot be kept: " + std::string(error.what()));
  }
}

std::string duration_text(double seconds) {
  return seconds < 120 ? number("%.0f s", seconds) : seconds < 7200 ? number("%.0f min", seconds / 60) : number("%.1f h", seconds / 3600);
}

struct Measured {
  Sensitivities sensitivities;
  std::unique_ptr<SimulatedBuilds> builds;
};

Measured measure(const ModelSource& source, const FitVerb& options, const TensorEncoder& encoder, const std::string& key,
                 BlockCache& blocks, const Texts& texts, const EvalOptions& eval, Progress& progress) {
  Measured result;
  const fs::path folder = cache_folder(options), path = folder.empty() ? folder : folder / ("sensitivities-" + key.substr(0, 16) + ".json");
  result.builds = std::make_unique<SimulatedBuilds>(source, encoder, blocks, eval, texts.measuring, options.ctx / 8, progress);
  if (std::optional<Sensitivities> cached = read_cache(path, source, key)) {
    std::cerr << "quern: sensitivities from " << printable(path.string()) << '\n';
    result.sensitivities = std::move(*cached);
    return result;
  }
  result.sensitivities = measure_errors(source, encoder, progress);
  const std::vector<TypeAssignment> builds = probe_builds(source, result.sensitivities, options.probes);
  const auto cost = static_cast<double>(result.builds->cost(builds)) * result.builds->seconds_per_layer();
  std::cerr << "quern: " << builds.size() << " probes, about " << duration_text(cost) << '\n';
  set_probe_results(result.sensitivities, result.builds->measure(builds, progress));
  write_cache(path, result.sensitivities, source, key);
  return result;
}

// "r.json", or "r-96GB.json" when there are several sizes.
fs::path output_path(const FitVerb& options, size_t number) {
  const fs::path path = options.output;
  if (options.sizes.size() == 1) return path;
  return path.parent_path() / (path.stem().string() + "-" + options.sizes[number] + path.extension().string());
}

std::string size_word(const std::string& size) {
  std::string word = "fit-";
  for (const char c : size) {
    if (c != ' ') word += c;
  }
  return word;
}

// Figures have one width, so that the recipe in the file has the same length before and after they are known.
std::string notes_text(const FitVerb& options, Estimate checked) {
  return "quern fit, calibrated on " + printable(fs::path(options.calib_text).filename().string()) + "; KL " +
         number("%9.6f", checked.value) + " +-" + number("%9.6f", checked.error) + " on " +
         printable(fs::path(options.check_text.empty() ? options.calib_text : options.check_text).filename().string()) +
         (options.check_text.empty() ? " (last fifth)" : "");
}

Recipe recipe_of(const ModelSource& source, const FitVerb& options, const std::string& size, const TypeAssignment& types,
                 Estimate checked) {
  Recipe recipe = recipe_of_types(size_word(size), source.metadata(), source.tensors(), types);
  recipe.notes = notes_text(options, checked);
  return recipe;
}

std::string with_error(Estimate e) { return number("%.6f", e.value) + " +-" + number("%.6f", e.error); }

void print_table(const std::vector<FitResult>& results, const std::vector<fs::path>& files) {
  std::vector<std::vector<std::string>> table = {{"build", "size", "bytes", "expected KL", "measured KL", "KL on check text"}};
  for (size_t s = 0; s < results.size(); ++s) {
    const FitResult& r = results[s];
    const auto row = [&](const FitBuild& build, bool best) {
      table.push_back({(best ? "* " : "  ") + build.name, format_size(build.size_bytes), std::to_string(build.size_bytes),
                       number("%.6f", build.expected), build.measured.value > 0 ? with_error(build.measured) : "",
                       with_error(build.checked)});
    };
    table.push_back({"at most " + std::to_string(r.limit_bytes) + " bytes: " + files[s].string()});
    row(r.proposal, !r.winner);
    for (size_t i = 0; i < r.rivals.size(); ++i) row(r.rivals[i], r.winner == i);
  }
  for (auto& line : table) line.resize(table.front().size());
  std::cout << format_table(table);
}

ordered_json json_of(const FitBuild& build) {
  ordered_json json = {{"name", build.name}, {"size_bytes", build.size_bytes}, {"expected_kl", build.expected}};
  if (build.measured.value > 0) json["measured_kl"] = {{"value", build.measured.value}, {"error", build.measured.error}};
  json["check_kl"] = {{"value", build.checked.value}, {"error", build.checked.error}};
  return json;
}

void print_json(const std::vector<FitResult>& results, const std::vector<fs::path>& files) {
  ordered_json list = ordered_json::array();
  for (size_t s = 0; s < results.size(); ++s) {
    ordered_json rivals = ordered_json::array();
    for (const FitBuild& build : results[s].rivals) rivals.push_back(json_of(build));
    list.push_back({{"limit_bytes", results[s].limit_bytes},
                    {"recipe", files[s].string()},
                    {"is_plain", results[s].winner.has_value()},
                    {"fit", json_of(results[s].proposal)},
                    {"plain", rivals}});
  }
  std::cout << ordered_json{{"schema", "quern.fit/1"}, {"sizes", list}}.dump(1) << '\n';
}

// Integer tables have no encoder and need none.
bool has_encoder_or_keeps(DType type) { return has_encoder(type) || type == DType::I32; }

std::vector<FitBuild> plain_builds(const ModelSource& source, const FitVerb& options, const Importance* importance) {
  std::vector<std::string> mixes;
  for (const Mix& mix : all_mixes()) {
    if (!is_lossless(mix)) mixes.emplace_back(mix.name);
  }
  std::vector<FitBuild> builds;
  const std::span<const Recipe> shipped = shipped_recipes();
  for (PlannedBuild& build : plan_builds(source, options.model, {shipped.begin(), shipped.end()}, mixes, importance)) {
    if (!std::ranges::all_of(build.types, has_encoder_or_keeps)) continue;
    builds.push_back({std::move(build.name), std::move(build.types), build.size_bytes, 0.0, {}, {}});
  }
  return builds;
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

int run_fit(const FitVerb& options) {
  check_usage(options);
  const auto start = std::chrono::steady_clock::now();
  const ThreadLimit limit(options.evaluation("").threads);
  std::vector<uint64_t> sizes;
  for (const std::string& size : options.sizes) sizes.push_back(parse_size(size));
  const std::unique_ptr<ModelSource> source = open_model(options.model);
  const Importance matrix = load_importance(options.imatrix, false, *source);
  const Importance* importance = options.imatrix.empty() ? nullptr : &matrix;
  const std::unique_ptr<FeedbackEncoder> feedback = open_feedback(options.statistics, *source);
  const TensorEncoder encoder(*source, importance, Effort::kDefault, feedback.get());
  const Texts texts = load_texts(*source, options);
  EvalOptions eval = eval_options(options.evaluation(""));
  std::cerr << "quern: reading " << printable(options.model) << " (" << format_size(size_on_disk(*source)) << "); measuring on "
            << texts.measuring.size() << " chunks of " << options.ctx << ", checking on " << texts.checking.size() << '\n';
  std::vector<fs::path> files;
  for (size_t s = 0; s < sizes.size(); ++s) {
    files.push_back(output_path(options, s));
    std::cerr << "quern: writing " << printable(files.back().string()) << '\n';
    check_output_path(files.back(), options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse);
  }
  std::vector<FitBuild> plain = plain_builds(*source, options, importance);

  ProgressBar bar;
  BlockCache blocks(eval.memory_bytes / 4);
  eval.memory_bytes -= eval.memory_bytes / 4;
  const std::string key = measurement_key(*source, options, texts, importance, feedback.get());
  Measured measured = measure(*source, options, encoder, key, blocks, texts, eval, bar);
  std::vector<FitBuild> proposals;
  for (size_t s = 0; s < sizes.size(); ++s) {
    const FileSize file_size = [&](const TypeAssignment& types) {
      return plan_builds(*source, options.model, {recipe_of(*source, options, options.sizes[s], types, {})}, {}, importance)
          .front()
          .size_bytes;
    };
    proposals.push_back(propose_builds(*source, measured.sensitivities, *measured.builds, std::span(&sizes[s], 1), file_size,
                                       {.rounds = options.rounds}, bar)
                            .front());
    proposals.back().name = size_word(options.sizes[s]);
  }
  measured.builds.reset();
  SimulatedBuilds checking(*source, encoder, blocks, eval, texts.checking, options.ctx / 2, bar);
  std::vector<FitResult> results = check_builds(measured.sensitivities, std::move(proposals), std::move(plain), sizes, checking, 3, bar);
  for (size_t s = 0; s < results.size(); ++s) {
    const FitResult& result = results[s];
    const Recipe recipe = result.winner ? load_recipe(result.rivals[*result.winner].name)
                                        : recipe_of(*source, options, options.sizes[s], result.proposal.types, result.proposal.checked);
    write_file_atomically(files[s], recipe_to_json(recipe), options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse);
  }
  options.json ? print_json(results, files) : print_table(results, files);
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
  verb->callback([options, &context] { context.command = [options] { return run_fit(*options); }; });
}

}  // namespace quern::cli
