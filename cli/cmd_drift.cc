#include <chrono>
#include <cmath>
#include <iostream>
#include <memory>
#include <span>

#include "cli/build.h"
#include "cli/evaluation.h"
#include "cli/feedback.h"
#include "cli/progress_bar.h"
#include "cli/simulation.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "quantize/simulated_source.h"
#include "verify/drift/base_file.h"
#include "verify/drift/drift_report.h"
#include "verify/drift/reference_file.h"

namespace quern::cli {
namespace {

struct DriftOptions {
  std::vector<std::string> models;     // original, then builds; with --reference: builds only
  std::vector<std::string> simulated;  // recipes and mixes
  std::string imatrix, statistics;
  std::string save_reference;
  std::string reference;
  std::optional<double> max_kl;
  std::optional<double> max_ppl_ratio;
  bool force = false;
  EvaluationOptions evaluation;
};

std::string with_error(const char* format, Estimate e) { return number(format, e.value) + " +-" + number(format, e.error); }

std::string table_of(const std::vector<DriftRow>& rows) {
  std::vector<std::vector<std::string>> table = {
      {"file", "size", "bpw", "PPL", "ln PPL ratio", "mean KL", "median", "90 %", "99 %", "99.9 %", "max", "same top", "RMS dp"}};
  for (const DriftRow& row : rows) {
    const DriftStatistics& s = row.drift.statistics;
    const Estimate top{100.0 * s.same_top.value, 100.0 * s.same_top.error};
    const Estimate rms{100.0 * s.rms_probability_change.value, 100.0 * s.rms_probability_change.error};
    const std::string slack = s.kl_slack > 0.0 ? " (+" + number("%.2g", s.kl_slack) + ")" : "";
    table.push_back({row.name, row.size_bytes == 0 ? "" : format_size(row.size_bytes),
                     row.size_bytes == 0 ? "" : number("%.2f", row.bits_per_weight), with_error("%.4f", s.ppl),
                     with_error("%.5f", s.ln_ratio), with_error("%.6f", s.kl) + slack, number("%.6f", s.kl_median), number("%.5f", s.kl_90),
                     number("%.5f", s.kl_99), number("%.4f", s.kl_999), number("%.4f", s.kl_max), with_error("%.2f", top) + " %",
                     with_error("%.2f", rms) + " %"});
  }
  return format_table(table);
}

// Share of tokens whose experts changed, one line per model.
std::string experts_table(const std::vector<DriftRow>& rows) {
  std::vector<std::vector<std::string>> table = {{"tokens with other experts, %, by layer"}};
  for (const DriftRow& row : rows) {
    std::vector<std::string> line = {row.name};
    for (const ExpertChange& change : row.drift.expert_changes) {
      if (table.front().size() <= line.size()) table.front().push_back(std::to_string(change.layer));
      line.push_back(number("%.1f", 100.0 * change.share));
    }
    if (line.size() > 1) table.push_back(std::move(line));
  }
  return table.size() > 1 ? "\n" + format_table(table) : "";
}

// Where the original's distributions come from, and the rows known without any build.
struct Reference {
  std::unique_ptr<ModelSource> source;  // outlives the model
  std::unique_ptr<ReferenceDistribution> distribution;
  OriginalModel* model = nullptr;  // when it is a model
  std::vector<DriftRow> rows;
  uint64_t resident_bytes = 0;
};

OutputFile::Overwrite overwrite_of(const DriftOptions& options) {
  return options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;
}

void save_reference(const DriftOptions& options, const ChunkedText& text, OriginalModel& original) {
  const OutputFile::Overwrite overwrite = overwrite_of(options);
  if (options.save_reference.ends_with(".h5") || options.save_reference.ends_with(".hdf5")) {
    write_reference_file(options.save_reference, original,
                         {.model = shown_name(options.models.front()), .bos_first = text.tokenizer->adds_bos()}, overwrite);
  } else {
    write_base_file(options.save_reference, original, text.text_tokens, overwrite);
  }
}

// Against a build that has lost something itself. MXFP4 is what some models are released in.
void warn_of_quantized_original(const std::string& path, const ModelSource& original) {
  if (std::filesystem::is_directory(path)) return;
  for (const LogicalTensor& tensor : original.tensors()) {
    if (traits(tensor.source_type).block_weights == 1 || tensor.source_type == DType::MXFP4) continue;
    print_warning(printable(path) + ": is quantized (" + std::string(name_of(tensor.source_type)) +
                  "); what it lost to the original checkpoint is not measured");
    return;
  }
}

// Before the original is run, which takes hours: whether all builds are there and can be compared with it.
void check_builds(std::span<const std::string> paths, int64_t n_vocab) {
  for (const std::string& path : paths) {
    try {
      check_vocabulary(*open_model(path), n_vocab);
    } catch (Error& e) {
      e.file(path);
      throw;
    }
  }
}

Reference run_original(const DriftOptions& options, Progress& progress) {
  Reference reference;
  const std::string& path = options.models.front();
  reference.source = open_model(path);
  warn_of_quantized_original(path, *reference.source);
  check_builds(std::span(options.models).subspan(1), vocabulary_size(*reference.source));
  const ChunkedText text = load_chunks(*reference.source, options.evaluation);
  const EvalOptions eval = eval_options(options.evaluation);
  std::vector<Sequence> both = text.chunks;
  both.insert(both.end(), text.chunks.begin(), text.chunks.end());
  announce_evaluation(*reference.source, path, options.evaluation, text, Evaluator(*reference.source, eval).plan(both));
  auto model = std::make_unique<OriginalModel>(*reference.source, eval, text.chunks, true, progress);
  reference.model = model.get();
  reference.resident_bytes = model->resident_bytes();
  if (!options.save_reference.empty()) save_reference(options, text, *model);
  DriftRow noise{kNoiseFloorName, 0, 0.0, model->noise_floor()};
  noise.drift.bytes_read = reference.source->bytes_read();
  reference.rows.push_back(std::move(noise));
  reference.distribution = std::move(model);
  return reference;
}

Reference open_reference(const DriftOptions& options) {
  Reference reference;
  if (is_base_file(options.reference)) {
    const std::unique_ptr<ModelSource> build = open_model(options.models.front());
    const auto tokenizer = make_tokenizer(build->metadata());
    reference.distribution = std::make_unique<BaseFile>(options.reference, tokenizer->adds_bos() ? tokenizer->bos_id() : std::nullopt);
  } else {
    reference.distribution = std::make_unique<ReferenceFile>(options.reference);
  }
  check_builds(options.models, reference.distribution->n_vocab());
  return reference;
}

int check_gates(const DriftOptions& options, const std::vector<DriftRow>& rows, size_t first_build) {
  int failures = 0;
  for (size_t i = first_build; i < rows.size(); ++i) {
    const DriftStatistics& s = rows[i].drift.statistics;
    if (options.max_kl && !(s.kl.value + s.kl_slack <= *options.max_kl)) {
      ++failures;
      print_error(rows[i].name + ": mean KL " + number("%.6f", s.kl.value + s.kl_slack) + " exceeds --max-kl " +
                  number("%g", *options.max_kl));
    }
    if (options.max_ppl_ratio && !(s.ratio.value <= *options.max_ppl_ratio)) {
      ++failures;
      print_error(rows[i].name + ": PPL ratio " + number("%.5f", s.ratio.value) + " exceeds --max-ppl-ratio " +
                  number("%g", *options.max_ppl_ratio));
    }
  }
  return failures == 0 ? 0 : exit_code(ErrorKind::kGate);
}

void check_usage(const DriftOptions& options) {
  const bool stored = !options.reference.empty();
  if (stored && !options.save_reference.empty()) throw Error(ErrorKind::kUsage, "--reference and --save-reference exclude each other");
  if (stored && !options.evaluation.text.empty())
    throw Error(ErrorKind::kUsage, "--reference holds its own tokens; --eval-text is not used with it");
  if (!stored && options.evaluation.text.empty()) throw Error(ErrorKind::kUsage, "--eval-text FILE is required (or --reference FILE)");
  if (stored && !options.simulated.empty()) throw Error(ErrorKind::kUsage, "--simulate needs the original, not --reference");
  if (!options.imatrix.empty() && options.simulated.empty()) throw Error(ErrorKind::kUsage, "--imatrix is for --simulate");
  if (!options.statistics.empty() && options.simulated.empty()) throw Error(ErrorKind::kUsage, "--statistics is for --simulate");
  if (!options.save_reference.empty()) check_output_path(options.save_reference, overwrite_of(options));
  for (size_t i = 1; !stored && i < options.models.size(); ++i) {
    std::error_code absent;
    if (std::filesystem::equivalent(options.models.front(), options.models[i], absent)) {
      throw Error(ErrorKind::kUsage, "is given as the original and as its build").file(options.models[i]);
    }
  }
  const bool no_build = options.models.size() < 2 && options.simulated.empty() && options.save_reference.empty();
  if (options.models.empty() || (!stored && no_build)) {
    throw Error(ErrorKind::kUsage, stored ? "no build given" : "give the original and at least one build (or --save-reference)");
  }
}

// Rows of builds that are not written: encoded layer by layer while they are measured.
void measure_simulated(const DriftOptions& options, const EvalOptions& eval, Reference& reference, Progress& progress) {
  if (options.simulated.empty()) return;
  const ModelSource& original = *reference.source;
  const Importance matrix = load_importance(options.imatrix, false, original);
  const Importance* importance = options.imatrix.empty() ? nullptr : &matrix;
  const std::unique_ptr<FeedbackEncoder> feedback = open_feedback(options.statistics, original);
  const TensorEncoder encoder(original, importance, Effort::kDefault, feedback.get());
  for (const std::string& name : options.simulated) {
    const PlannedBuild build = plan_builds(original, options.models.front(), {load_recipe(name)}, {}, importance).front();
    std::cerr << "simulating " << printable(build.name) << " (" << format_size(build.size_bytes) << ")\n";
    const SimulatedSource simulated(original, build.types, encoder, nullptr);
    reference.rows.push_back(
        {build.name, build.size_bytes, bits_per_weight(simulated), measure_drift(simulated, eval, *reference.distribution, progress)});
  }
}

int run_drift(const DriftOptions& options) {
  check_usage(options);
  const auto start = std::chrono::steady_clock::now();
  const ThreadLimit limit(options.evaluation.threads);
  const bool stored = !options.reference.empty();
  if (options.evaluation.dry_run) {
    for (const std::string& path : options.models) {
      const std::unique_ptr<ModelSource> source = open_model(path);
      const EvalOptions eval = eval_options(options.evaluation);
      const std::vector<Sequence> chunks =
          stored ? open_reference(options).distribution->chunks() : load_chunks(*source, options.evaluation).chunks;
      std::cout << shown_name(path) << '\n' << plan_table(Evaluator(*source, eval).plan(chunks));
    }
    return 0;
  }
  ProgressBar bar;
  Reference reference = stored ? open_reference(options) : run_original(options, bar);
  uint64_t bytes_read = reference.source ? reference.source->bytes_read() : 0,
           size_bytes = reference.source ? size_on_disk(*reference.source) : 0;
  EvalOptions eval = eval_options(options.evaluation);
  eval.memory_bytes -= std::min(eval.memory_bytes / 2, reference.resident_bytes);
  const size_t first_build = reference.rows.size();
  for (size_t i = stored ? 0 : 1; i < options.models.size(); ++i) {
    const std::unique_ptr<ModelSource> build = open_model(options.models[i]);
    std::cerr << "reading " << printable(options.models[i]) << " (" << format_size(size_on_disk(*build)) << ")\n";
    reference.rows.push_back({shown_name(options.models[i]), size_on_disk(*build), bits_per_weight(*build),
                              measure_drift(*build, eval, *reference.distribution, bar)});
    bytes_read += build->bytes_read();
    size_bytes += size_on_disk(*build);
  }
  if (reference.source) bytes_read -= reference.source->bytes_read();
  measure_simulated(options, eval, reference, bar);
  if (reference.source) bytes_read += reference.source->bytes_read();
  if (options.evaluation.json) {
    const std::vector<Sequence>& chunks = reference.distribution->chunks();
    const DriftReport report{.original = stored ? options.reference : options.models.front(),
                             .text = std::filesystem::path(options.evaluation.text).filename(),
                             .n_ctx = static_cast<int64_t>(chunks.front().tokens.size()),
                             .n_chunks = static_cast<int64_t>(chunks.size()),
                             .rows = reference.rows,
                             .bytes_read = bytes_read};
    std::cout << drift_to_json(report, DriftDetail::kTokens);
  } else {
    if (!reference.rows.empty()) {
      std::cout << "original: PPL " << with_error("%.4f", reference.rows.front().drift.statistics.ppl_original) << ", "
                << reference.rows.front().drift.statistics.n_tokens << " scored tokens\n\n"
                << table_of(reference.rows) << experts_table(reference.rows);
    }
  }
  print_cost(bytes_read, size_bytes, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return check_gates(options, reference.rows, first_build);
}

}  // namespace

void add_drift(CLI::App& app, Context& context) {
  const auto options = std::make_shared<DriftOptions>();
  CLI::App* verb = app.add_subcommand("drift", "Measure what builds lost against their original");
  verb->group("Measure")->footer("quern drift DeepSeek-V4-Flash out/*.gguf --eval-text wiki.test.raw");
  verb->add_option("MODELS", options->models, "the original, then its builds")->required()->group("Input");
  verb->add_option("--simulate", options->simulated, "a recipe or mix that was not written")
      ->type_name("RECIPE")
      ->allow_extra_args(false)
      ->group("Input");
  verb->add_option("--imatrix", options->imatrix, "importance matrix for --simulate")->type_name("FILE")->group("Input");
  verb->add_option("--statistics", options->statistics, "error feedback for --simulate")->type_name("FOLDER")->group("Input");
  verb->add_option("--save-reference", options->save_reference, "keep the original: .h5, or a base file")
      ->type_name("FILE")
      ->group("Input");
  verb->add_option("--reference", options->reference, "a kept original; MODELS are builds")->type_name("FILE")->group("Input");
  verb->add_flag("--force", options->force, "overwrite the reference file")->group("Input");
  verb->add_option("--max-kl", options->max_kl, "exit 1 above this mean KL")->type_name("X")->group("Gates");
  verb->add_option("--max-ppl-ratio", options->max_ppl_ratio, "exit 1 above this PPL ratio")->type_name("Y")->group("Gates");
  add_evaluation_options(*verb, options->evaluation, false);
  verb->callback([options, &context] { context.command = [options] { return run_drift(*options); }; });
}

}  // namespace quern::cli
