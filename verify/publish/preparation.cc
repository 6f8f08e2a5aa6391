#include "verify/publish/preparation.h"

#include "convert/plan/plan_checks.h"
#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/base/sha256.h"
#include "formats/base/version.h"
#include "formats/model/model_facts.h"
#include "formats/statistics/imatrix.h"
#include "verify/calibrate/collect.h"
#include "verify/drift/chunked_text.h"

// Everything here is kept in a folder that is named by a key of all that it depends on, under names that only complete files have. So what
// exists is right, and a step is done when its file is there. Recipes of fit come last: with one of them, nothing of what it was made from
// is looked at again but the statistics, which the builds need too.

namespace quern {
namespace fs = std::filesystem;
namespace {

constexpr auto kReplace = OutputFile::Overwrite::kAllow;
constexpr const char* kWorkName = ".quern-work";
constexpr const char* kImatrixName = "imatrix.gguf";
constexpr const char* kStatisticsName = "statistics";

}  // namespace

Preparation::Preparation(PreparationOptions options) : options_(std::move(options)) {
  const FeedbackOptions& feedback = options_.feedback;
  if (fits() && feedback.text.empty()) throw Error(ErrorKind::kUsage, "--size needs a text to measure on: --calib-text FILE");
  if (!is_needed()) return;
  source_ = open_model(options_.model, options_.about);
  std::string key = kVersion;
  const auto add = [&](const std::string& text) { key += "\n" + text; };
  for (const SourceFile& file : source_->files()) add(fingerprint(file.path));
  add(sha256_hex(read_file(feedback.text, uint64_t{1} << 32)) + " " + std::to_string(feedback.tokens) + " " + feedback.mode);
  for (const fs::path& file : {options_.imatrix, feedback.statistics.empty() ? fs::path() : feedback.statistics / "statistics.json"}) {
    add(file.empty() ? "" : sha256_hex(read_file(file, uint64_t{1} << 32)));
  }
  options_.folder = options_.folder / kWorkName / sha256_hex(key).substr(0, 16);
  for (const std::string& size : options_.sizes) {
    sizes_.push_back({size, parse_size(size), options_.folder / (recipe_name(size) + ".json")});
  }
  if (fits()) FitJob(*source_, Calibration(), fit_options());  // what cannot be is refused before statistics are collected for it
}

Preparation::~Preparation() = default;

bool Preparation::collects_statistics() const {
  return fits() && options_.feedback.live() && statistics_bytes(source_->tensors()) <= kMostStatisticsBytes;
}

bool Preparation::collects_imatrix() const {
  if (!options_.imatrix.empty() || options_.feedback.text.empty() || !options_.feedback.statistics.empty()) return false;
  return !options_.feedback.wanted() || (fits() && !collects_statistics());
}

uint64_t Preparation::memory_bytes() const { return options_.memory_bytes != 0 ? options_.memory_bytes : default_evaluation_memory(); }

std::vector<std::string> Preparation::steps() const {
  std::vector<std::string> steps;
  const std::string text =
      "from " + std::to_string(options_.feedback.tokens) + " tokens of " + printable(options_.feedback.text.filename().string());
  if (collects_imatrix()) steps.push_back("an importance matrix " + text + ", in one pass");
  if (collects_statistics()) {
    steps.push_back("statistics for error feedback " + text + ", in one pass; at most " +
                    format_size(statistics_bytes(source_->tensors())) + " in a temporary folder");
  }
  for (const FitSize& size : sizes_) steps.push_back("the best types for " + size.name + ", from many partial passes");
  return steps;
}

void Preparation::run(Progress& progress) {
  make_folder(options_.folder);
  if (collects_imatrix()) collect_imatrix(progress);
  if (collects_statistics()) collect(progress);
  if (fits()) fit(progress);
}

void Preparation::collect_imatrix(Progress& progress) {
  const fs::path file = options_.folder / kImatrixName;
  if (fs::exists(file)) return;
  const FeedbackOptions& feedback = options_.feedback;
  const ChunkedText text = load_text(
      *source_,
      {.file = feedback.text, .ctx = kCalibrationContext, .max_chunks = (feedback.tokens + kCalibrationContext - 1) / kCalibrationContext});
  EvalOptions eval;
  eval.memory_bytes = memory_bytes();
  ImatrixRun run(*source_, eval);
  progress.note("collecting an importance matrix");
  write_imatrix(run.collect(text, feedback.text.filename().string(), progress), ImatrixFormat::kGguf, file, kReplace);
}

void Preparation::collect(Progress& progress) {
  const fs::path folder = options_.folder / kStatisticsName;
  if (fs::exists(folder / "statistics.json")) return;
  const FeedbackOptions& feedback = options_.feedback;
  const CalibrationText text =
      load_calibration_text(*source_, options_.model, feedback.text, feedback.tokens, kCalibrationContext, kOriginalMode);
  StatisticsRunOptions run{.model = options_.model, .folder = folder, .build = {}, .overwrite = kReplace, .eval = {}};
  run.eval.memory_bytes = memory_bytes();
  progress.note("collecting statistics for error feedback");
  collect_statistics(*source_, text, run, progress);
}

FitJobOptions Preparation::fit_options() const {
  FitJobOptions job{.model = options_.model,
                    .sizes = sizes_,
                    .calib_text = options_.feedback.text,
                    .check_text = {},
                    .cache = options_.folder,
                    .overwrite = kReplace,
                    .eval = {}};
  job.eval.memory_bytes = memory_bytes();
  return job;
}

void Preparation::fit(Progress& progress) {
  FitJobOptions job = fit_options();
  std::erase_if(job.sizes, [](const FitSize& size) { return fs::exists(size.recipe); });
  if (job.sizes.empty()) return;
  FeedbackOptions with = feedback();
  with.mode = with.statistics.empty() && with.collected.empty() ? "off" : "";
  Calibration calibration;
  calibration.importance =
      load_importance(collects_imatrix() ? options_.folder / kImatrixName : options_.imatrix, options_.strict, *source_);
  if (with.wanted()) calibration.feedback = make_feedback(with, *source_, options_.model, memory_bytes())->open();
  for (const FitSize& size : job.sizes) progress.note("finding the best types for " + size.name);
  FitJob(*source_, calibration, job).run(progress);
}

fs::path Preparation::imatrix() const {
  return collects_imatrix() && !options_.feedback.wanted() ? options_.folder / kImatrixName : options_.imatrix;
}

FeedbackOptions Preparation::feedback() const {
  FeedbackOptions feedback = options_.feedback;
  if (collects_statistics()) feedback.collected = options_.folder / kStatisticsName;
  if (feedback.mode == "off" && !imatrix().empty()) feedback.text.clear();  // it is that of the matrix
  return feedback;
}

std::vector<fs::path> Preparation::recipes() const {
  std::vector<fs::path> recipes;
  for (const FitSize& size : sizes_) recipes.push_back(size.recipe);
  return recipes;
}

void remove_preparation(const fs::path& folder) { fs::remove_all(folder / kWorkName); }

}  // namespace quern
