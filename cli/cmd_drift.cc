#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <span>

#include "cli/build.h"
#include "cli/evaluation.h"
#include "cli/progress_bar.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "formats/model/model_facts.h"
#include "verify/drift/drift_job.h"

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
  bool wide = false;
  EvaluationOptions evaluation;
};

std::string kl_text(const DriftStatistics& s) {
  return with_error("%.6f", s.kl) + (s.kl_slack > 0.0 ? " (+" + number("%.2g", s.kl_slack) + ")" : "");
}

// What decides between builds, in 80 columns.
std::string table_of(const std::vector<DriftRow>& rows) {
  std::vector<std::vector<std::string>> table = {{"file", "mean KL", "99 %", "same top", "PPL"}};
  for (const DriftRow& row : rows) {
    const DriftStatistics& s = row.drift.statistics;
    table.push_back(
        {row.name, kl_text(s), number("%.5f", s.kl_99), number("%.2f", 100.0 * s.same_top.value) + " %", number("%.4f", s.ppl.value)});
  }
  return format_table(table);
}

std::string wide_table_of(const std::vector<DriftRow>& rows) {
  std::vector<std::vector<std::string>> table = {
      {"file", "mean KL", "median", "90 %", "99 %", "99.9 %", "max", "same top", "RMS dp", "PPL", "ln PPL ratio", "size", "bpw"}};
  for (const DriftRow& row : rows) {
    const DriftStatistics& s = row.drift.statistics;
    const Estimate top{100.0 * s.same_top.value, 100.0 * s.same_top.error};
    const Estimate rms{100.0 * s.rms_probability_change.value, 100.0 * s.rms_probability_change.error};
    table.push_back({row.name, kl_text(s), number("%.6f", s.kl_median), number("%.5f", s.kl_90), number("%.5f", s.kl_99),
                     number("%.4f", s.kl_999), number("%.4f", s.kl_max), with_error("%.2f", top) + " %", with_error("%.2f", rms) + " %",
                     with_error("%.4f", s.ppl), with_error("%.5f", s.ln_ratio), row.size_bytes == 0 ? "" : format_size(row.size_bytes),
                     row.size_bytes == 0 ? "" : number("%.2f", row.bits_per_weight)});
  }
  return format_table(table, std::string::npos);
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

void print_report(const DriftOptions& options, const DriftReport& report) {
  if (options.evaluation.json) {
    std::cout << drift_to_json(report, DriftDetail::kTokens);
  } else if (!report.rows.empty()) {
    const DriftStatistics& first = report.rows.front().drift.statistics;
    std::cout << "original: PPL " << with_error("%.4f", first.ppl_original) << ", " << first.n_tokens << " scored tokens\n\n"
              << (options.wide ? wide_table_of(report.rows) : table_of(report.rows)) << (options.wide ? experts_table(report.rows) : "");
  }
  if (!options.save_reference.empty()) {
    std::clog << "quern: wrote " << printable(options.save_reference) << ", "
              << format_size(std::filesystem::file_size(options.save_reference)) << '\n';
  }
}

OutputFile::Overwrite overwrite_of(const DriftOptions& options) {
  return options.force ? OutputFile::Overwrite::kAllow : OutputFile::Overwrite::kRefuse;
}

DriftJob run_original(const DriftOptions& options, const ModelSource& original, Progress& progress) {
  const std::string& path = options.models.front();
  if (const std::optional<DType> type = lossy_type(original); type && !std::filesystem::is_directory(path)) {
    print_warning(printable(path) + ": is quantized (" + std::string(name_of(*type)) +
                  "); what it lost to the original checkpoint is not measured");
  }
  const ChunkedText text = load_text(original, text_options(options.evaluation));
  const std::vector<std::string> warnings = check_comparable(std::span(options.models).subspan(1), basis_of(original, text));
  const EvalOptions eval = eval_options(options.evaluation);
  announce_evaluation(original, path, options.evaluation, text, plan_original(original, text, eval));
  for (const std::string& warning : warnings) print_warning(warning);
  DriftJob job(original, path, std::filesystem::path(options.evaluation.text).filename().string(), text, eval, progress);
  for (const auto& list : {text.warnings, warnings}) std::ranges::for_each(list, [&](const std::string& warning) { job.warn(warning); });
  if (!options.save_reference.empty()) job.save_reference(options.save_reference, text, overwrite_of(options));
  return job;
}

DriftJob run_reference(const DriftOptions& options) {
  std::unique_ptr<ReferenceDistribution> reference = open_reference(options.reference, options.models.front());
  const std::vector<std::string> warnings = check_comparable(options.models, basis_of(*reference));
  DriftJob job(std::move(reference), options.reference, eval_options(options.evaluation));
  for (const std::string& warning : warnings) {
    print_warning(warning);
    job.warn(warning);
  }
  return job;
}

void warn_of_chance(DriftJob& job) {
  for (const DriftRow& row : job.report().rows) {
    const std::string warning = worse_than_chance(row.drift.statistics, job.n_vocab());
    if (warning.empty()) continue;
    print_warning(printable(row.name) + ": " + warning);
    job.warn(row.name + ": " + warning);
  }
}

int check_gates(const DriftOptions& options, const std::vector<DriftRow>& rows) {
  int failures = 0;
  const auto fail = [&](const DriftRow& row, const std::string& message) {
    ++failures;
    print_error(printable(row.name) + ": " + message);
  };
  for (const DriftRow& row : rows) {
    if (row.name == kNoiseFloorName) continue;
    const DriftStatistics& s = row.drift.statistics;
    if (!is_finite(s)) {
      fail(row, "gives infinite losses or NaN, so its figures mean nothing and no gate can pass");
      continue;
    }
    if (options.max_kl && s.kl.value + s.kl_slack > *options.max_kl) {
      fail(row, "mean KL " + number("%.6f", s.kl.value + s.kl_slack) + " exceeds --max-kl " + number("%g", *options.max_kl));
    }
    if (options.max_ppl_ratio && s.ratio.value > *options.max_ppl_ratio) {
      fail(row, "PPL ratio " + number("%.5f", s.ratio.value) + " exceeds --max-ppl-ratio " + number("%g", *options.max_ppl_ratio));
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

// Builds that are not written: encoded layer by layer while they are measured.
void measure_simulated(const DriftOptions& options, const ModelSource& original, DriftJob& job, Progress& progress) {
  if (options.simulated.empty()) return;
  const Calibration calibration{load_importance(options.imatrix, false, original), nullptr};
  print_findings(options.imatrix, calibration.importance);
  const std::unique_ptr<FeedbackEncoder> feedback = open_feedback(options.statistics, original.tensors());
  const TensorEncoder encoder(original, &calibration.importance, Effort::kDefault, feedback.get());
  for (const std::string& name : options.simulated) {
    const PlannedBuild build = plan_builds(original, options.models.front(), {load_recipe(name)}, {}, calibration).front();
    std::clog << "quern: simulating " << printable(build.name) << " (" << format_size(build.size_bytes) << ")\n";
    job.add_simulated(build, encoder, progress);
  }
}

int print_plans(const DriftOptions& options) {
  std::vector<PlannedPass> passes;
  for (const std::string& path : options.models) {
    const std::unique_ptr<ModelSource> source = open_model(path);
    const std::vector<Sequence> chunks = options.reference.empty() ? load_text(*source, text_options(options.evaluation)).chunks
                                                                   : open_reference(options.reference, options.models.front())->chunks();
    passes.push_back({path, Evaluator(*source, eval_options(options.evaluation)).plan(chunks)});
  }
  if (options.evaluation.json) {
    std::cout << plans_to_json("quern.drift/1", passes);
    return 0;
  }
  for (const PlannedPass& pass : passes) std::cout << shown_name(pass.model) << '\n' << plan_table(pass.plan);
  return 0;
}

int run_drift(const DriftOptions& options) {
  check_usage(options);
  const auto start = std::chrono::steady_clock::now();
  const ThreadLimit limit(options.evaluation.threads);
  if (options.evaluation.dry_run) return print_plans(options);
  const bool stored = !options.reference.empty();
  const std::unique_ptr<ModelSource> original = stored ? nullptr : open_model(options.models.front());
  ProgressBar bar;
  DriftJob job = stored ? run_reference(options) : run_original(options, *original, bar);
  uint64_t size_bytes = stored ? 0 : size_on_disk(*original);
  for (size_t i = stored ? 0 : 1; i < options.models.size(); ++i) {
    const std::unique_ptr<ModelSource> build = open_model(options.models[i]);
    const uint64_t build_bytes = size_on_disk(*build);
    std::clog << "quern: reading " << printable(options.models[i]) << " (" << format_size(build_bytes) << ")\n";
    job.add(*build, shown_name(options.models[i]), build_bytes, bar);
    size_bytes += build_bytes;
  }
  if (!stored) measure_simulated(options, *original, job, bar);
  warn_of_chance(job);
  const DriftReport& report = job.report();
  print_report(options, report);
  print_cost(report.bytes_read, size_bytes, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return check_gates(options, report.rows);
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
  verb->add_option("--max-kl", options->max_kl, "exit 1 above this mean KL")->type_name("X")->check(a_limit)->group("Gates");
  verb->add_option("--max-ppl-ratio", options->max_ppl_ratio, "exit 1 above this PPL ratio")
      ->type_name("Y")
      ->check(a_limit)
      ->group("Gates");
  verb->add_flag("--wide", options->wide, "all figures, and experts by layer")->group("Output");
  add_evaluation_options(*verb, options->evaluation, false);
  verb->callback([options, &context] { context.command = [options] { return run_drift(*options); }; });
}

}  // namespace quern::cli
