#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "convert/plan/plan.h"
#include "quantize/feedback/feedback_encoder.h"
#include "verify/calibrate/live_statistics.h"

namespace quern::cli {

// Error feedback on the command line: statistics from a folder, or collected from a text while the build is made.
inline constexpr uint64_t kFactorCacheBytes = uint64_t{256} << 20;

struct FeedbackOptions {
  std::string mode;        // "on", "sequential"; empty: what the statistics are for, or none
  std::string statistics;  // folder
  std::string text;
  int64_t tokens = 131072;
  bool wanted() const noexcept { return !mode.empty() || !statistics.empty(); }
  bool live() const noexcept { return !mode.empty() && statistics.empty(); }
};

// --feedback, --statistics, --calib-text, --calib-tokens.
void add_feedback_options(CLI::App& verb, FeedbackOptions& options, const char* group);
// Throws kUsage when the options contradict each other.
void check_feedback_options(const FeedbackOptions& options);

// From a folder of statistics; nullptr when there is none. The model must outlive it.
std::unique_ptr<FeedbackEncoder> open_feedback(const std::filesystem::path& statistics, const ModelSource& source);

// A text as LiveStatistics runs it, with its record.
struct CalibrationText {
  std::vector<Sequence> chunks;
  StatisticsRecord record;
};
CalibrationText load_calibration_text(const ModelSource& source, const std::string& model, const std::string& text, int64_t tokens,
                                      int64_t ctx, const char* mode);

// Where encoders get their second moments. In sequential mode the statistics follow one build, whose types are said before it is made.
class Feedback {
 public:
  // memory_bytes: for running the model, when there is a text. Numbers of one layer at a time are kept in a temporary folder. The model
  // outlives this.
  Feedback(const FeedbackOptions& options, const ModelSource& source, const std::string& model, uint64_t memory_bytes);

  // For one reading of the model, or in sequential mode for one build.
  std::unique_ptr<FeedbackEncoder> open();
  // In sequential mode, for what was opened last. types: one per tensor of the model; importance: of the build, outlives the encoding.
  void follow(std::vector<DType> types, const Importance* importance, Effort effort);
  bool follows() const noexcept { return live_ != nullptr && text_.record.mode == kSequentialMode; }

  // What is done with which text; empty when there is a folder.
  const std::string& note() const noexcept { return note_; }
  // Shows there which layer is run for statistics.
  void tell(Progress& progress) noexcept;

 private:
  FeedbackOptions options_;
  const ModelSource& model_;
  CalibrationText text_;  // when there is one
  uint64_t memory_bytes_;
  std::string note_;
  Progress* progress_ = nullptr;
  FeedbackEncoder* source_ = nullptr;  // opened last
  LiveStatistics* live_ = nullptr;     // in it
  std::unique_ptr<TensorEncoder> encoder_;
};

}  // namespace quern::cli
