#include "verify/calibrate/feedback.h"

#include "formats/base/file.h"
#include "formats/base/resources.h"
#include "formats/base/sha256.h"
#include "formats/model/model_facts.h"
#include "verify/calibrate/live_statistics.h"
#include "verify/drift/chunked_text.h"

namespace quern {
namespace {

std::string sha256_of(const std::filesystem::path& text) { return sha256_hex(read_file(text, uint64_t{1} << 32)); }

const char* mode_of(const FeedbackOptions& options) { return options.mode == "sequential" ? kSequentialMode : kOriginalMode; }

// Statistics of a folder that will not stay: the build is to say what text they were made from, as when they are collected meanwhile.
class StatisticsOfText final : public StatisticsSource {
 public:
  explicit StatisticsOfText(std::unique_ptr<StatisticsSource> in_folder) : in_folder_(std::move(in_folder)), record_(in_folder_->record()) {
    record_.sha256.clear();
  }
  const StatisticsRecord& record() const noexcept override { return record_; }
  std::shared_ptr<const StatisticsInput> find(std::string_view weight) override { return in_folder_->find(weight); }

 private:
  std::unique_ptr<StatisticsSource> in_folder_;
  StatisticsRecord record_;
};

// Statistics that were collected before.
class FolderFeedback final : public BuildFeedback {
 public:
  FolderFeedback(const FeedbackOptions& options, const ModelSource& source) : options_(options), source_(source) {}

  std::unique_ptr<FeedbackEncoder> open() override {
    const bool stays = !options_.statistics.empty();
    std::unique_ptr<StatisticsSource> statistics = open_statistics(stays ? options_.statistics : options_.collected, source_.tensors());
    if (stays) {
      check(statistics->record());
    } else {
      statistics = std::make_unique<StatisticsOfText>(std::move(statistics));
    }
    return std::make_unique<FeedbackEncoder>(std::move(statistics), source_.tensors(), kFactorCacheBytes);
  }

  bool follows() const noexcept override { return false; }
  void follow(std::vector<DType>, const Importance*, Effort) override {}
  std::string note() const override { return ""; }
  void tell(Progress&) noexcept override {}

 private:
  void check(const StatisticsRecord& record) const {
    if (!options_.mode.empty() && record.mode != mode_of(options_)) {
      throw Error(ErrorKind::kUsage, "--feedback " + options_.mode + ": the statistics are of mode '" + record.mode +
                                         "'; 'quern statistics" +
                                         (options_.mode == "on" ? "' without --sequential collects those of the original"
                                                                : " --sequential RECIPE' collects those of a build"))
          .file(options_.statistics.string());
    }
    if (!options_.text.empty() && sha256_of(options_.text) != record.text_sha256) {
      throw Error(ErrorKind::kUsage, "is not the text of the statistics, '" + printable(record.text) + "'").file(options_.text.string());
    }
  }

  const FeedbackOptions options_;
  const ModelSource& source_;
};

// Statistics that the model leaves while it runs over the text, layer by layer as the build asks for them. What was opened last is owned by
// whoever opened it and told which build to follow through here.
class LiveFeedback final : public BuildFeedback {
 public:
  LiveFeedback(const FeedbackOptions& options, const ModelSource& source, const std::filesystem::path& model, uint64_t memory_bytes)
      : source_(source),
        text_(load_calibration_text(source, model, options.text, options.tokens, kCalibrationContext, mode_of(options))),
        memory_bytes_(memory_bytes) {
    note_ = "error feedback from " + printable(options.text.string()) + ": " + std::to_string(text_.record.n_tokens) + " tokens in " +
            std::to_string(text_.chunks.size()) + " chunks of " + std::to_string(kCalibrationContext) + ", up to " +
            format_size(memory_bytes) + " of memory for running the model";
  }

  std::unique_ptr<FeedbackEncoder> open() override {
    LiveStatistics::Options live;
    live.eval.memory_bytes = memory_bytes_;
    live.chunks = text_.chunks;
    live.folder = make_temporary_folder("quern-statistics");
    live.overwrite = OutputFile::Overwrite::kAllow;
    auto statistics = std::make_unique<LiveStatistics>(source_, std::move(live), text_.record);
    live_ = statistics.get();
    if (progress_ != nullptr) live_->tell(*progress_);
    auto opened = std::make_unique<FeedbackEncoder>(std::move(statistics), source_.tensors(), kFactorCacheBytes);
    opened_ = opened.get();
    return opened;
  }

  bool follows() const noexcept override { return text_.record.mode == kSequentialMode; }

  void follow(std::vector<DType> types, const Importance* importance, Effort effort) override {
    encoder_ = std::make_unique<TensorEncoder>(source_, importance, effort, opened_);
    live_->follow(std::move(types), *encoder_);
  }

  std::string note() const override { return note_; }

  void tell(Progress& progress) noexcept override {
    progress_ = &progress;
    if (live_ != nullptr) live_->tell(progress);
  }

 private:
  const ModelSource& source_;
  const CalibrationText text_;
  const uint64_t memory_bytes_;
  std::string note_;
  Progress* progress_ = nullptr;
  FeedbackEncoder* opened_ = nullptr;
  LiveStatistics* live_ = nullptr;  // in it
  std::unique_ptr<TensorEncoder> encoder_;
};

}  // namespace

CalibrationText load_calibration_text(const ModelSource& source, const std::filesystem::path& model, const std::filesystem::path& text,
                                      int64_t tokens, int64_t ctx, const char* mode) {
  CalibrationText result;
  result.chunks = load_text(source, {.file = text, .ctx = ctx, .max_chunks = (tokens + ctx - 1) / ctx}).chunks;
  StatisticsRecord& record = result.record;
  record.model = shown_name(model);
  record.text = text.filename().string();
  record.text_sha256 = sha256_of(text);
  record.mode = mode;
  record.ctx = ctx;
  for (const Sequence& chunk : result.chunks) record.n_tokens += std::ssize(chunk.tokens);
  return result;
}

std::unique_ptr<BuildFeedback> make_feedback(const FeedbackOptions& options, const ModelSource& source, const std::filesystem::path& model,
                                             uint64_t memory_bytes) {
  const bool in_folder = !options.statistics.empty() || (!options.collected.empty() && options.mode != "sequential");
  if (in_folder) return std::make_unique<FolderFeedback>(options, source);
  if (options.text.empty())
    throw Error(ErrorKind::kUsage, "--feedback needs a text (--calib-text FILE) or statistics (--statistics FOLDER)");
  return std::make_unique<LiveFeedback>(options, source, model, memory_bytes);
}

}  // namespace quern
