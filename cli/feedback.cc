#include "cli/feedback.h"

#include "cli/evaluation.h"
#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/base/sha256.h"

namespace quern::cli {
namespace {

constexpr int64_t kContext = 512;  // as quern statistics takes unless told otherwise

const char* mode_of(const FeedbackOptions& options) { return options.mode == "sequential" ? kSequentialMode : kOriginalMode; }

}  // namespace

void add_feedback_options(CLI::App& verb, FeedbackOptions& options, const char* group) {
  verb.add_option("--feedback", options.mode, "on, sequential: error feedback from a text")
      ->type_name("MODE")
      ->check([](const std::string& text) { return text == "on" || text == "sequential" ? "" : "must be on or sequential"; })
      ->group(group);
  verb.add_option("--statistics", options.statistics, "or from what 'quern statistics' wrote")->type_name("FOLDER")->group(group);
  if (verb.get_option_no_throw("--calib-text") == nullptr)
    verb.add_option("--calib-text", options.text, "its text; --calib-tokens N, not 131072")->type_name("FILE")->group(group);
  verb.add_option("--calib-tokens", options.tokens, "")->type_name("N")->check(at_least_one)->group("");  // no room; named above
}

void check_feedback_options(const FeedbackOptions& options) {
  if (options.mode.empty()) return;
  if (options.statistics.empty() && options.text.empty())
    throw Error(ErrorKind::kUsage, "--feedback needs a text (--calib-text FILE) or statistics (--statistics FOLDER)");
}

std::unique_ptr<FeedbackEncoder> open_feedback(const std::filesystem::path& statistics, const ModelSource& source) {
  if (statistics.empty()) return nullptr;
  return std::make_unique<FeedbackEncoder>(open_statistics(statistics, source.tensors()), source.tensors(), kFactorCacheBytes);
}

CalibrationText load_calibration_text(const ModelSource& source, const std::string& model, const std::string& text, int64_t tokens,
                                      int64_t ctx, const char* mode) {
  EvaluationOptions evaluation;
  evaluation.text = text;
  evaluation.ctx = ctx;
  evaluation.chunks = (tokens + ctx - 1) / ctx;
  CalibrationText result;
  result.chunks = load_chunks(source, evaluation).chunks;
  StatisticsRecord& record = result.record;
  record.model = shown_name(model);
  record.text = std::filesystem::path(text).filename().string();
  record.text_sha256 = sha256_hex(read_file(text, uint64_t{1} << 32));
  record.mode = mode;
  record.ctx = ctx;
  for (const Sequence& chunk : result.chunks) record.n_tokens += std::ssize(chunk.tokens);
  return result;
}

Feedback::Feedback(const FeedbackOptions& options, const ModelSource& source, const std::string& model, uint64_t memory_bytes)
    : options_(options), model_(source), memory_bytes_(memory_bytes) {
  check_feedback_options(options);
  if (!options.live()) return;
  text_ = load_calibration_text(source, model, options.text, options.tokens, kContext, mode_of(options));
  note_ = "error feedback from " + printable(options.text) + ": " + std::to_string(text_.record.n_tokens) + " tokens in " +
          std::to_string(text_.chunks.size()) + " chunks of " + std::to_string(kContext) + ", up to " + format_size(memory_bytes) +
          " of memory for running the model";
}

std::unique_ptr<FeedbackEncoder> Feedback::open() {
  std::unique_ptr<StatisticsSource> statistics;
  if (options_.live()) {
    LiveStatistics::Options live;
    live.eval.memory_bytes = memory_bytes_;
    live.chunks = text_.chunks;
    live.folder = make_temporary_folder("quern-statistics");
    live.overwrite = OutputFile::Overwrite::kAllow;
    auto running = std::make_unique<LiveStatistics>(model_, std::move(live), text_.record);
    live_ = running.get();
    if (progress_ != nullptr) live_->tell(*progress_);
    statistics = std::move(running);
  } else {
    statistics = open_statistics(options_.statistics, model_.tensors());
    if (!options_.mode.empty() && statistics->record().mode != mode_of(options_)) {
      throw Error(ErrorKind::kUsage, "--feedback " + options_.mode + ": the statistics are of mode '" + statistics->record().mode + "'")
          .file(options_.statistics);
    }
  }
  auto source = std::make_unique<FeedbackEncoder>(std::move(statistics), model_.tensors(), kFactorCacheBytes);
  source_ = source.get();
  return source;
}

void Feedback::follow(std::vector<DType> types, const Importance* importance, Effort effort) {
  encoder_ = std::make_unique<TensorEncoder>(model_, importance, effort, source_);
  live_->follow(std::move(types), *encoder_);
}

void Feedback::tell(Progress& progress) noexcept {
  progress_ = &progress;
  if (live_ != nullptr) live_->tell(progress);
}

}  // namespace quern::cli
