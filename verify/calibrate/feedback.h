#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "convert/build.h"
#include "formats/model/model_source.h"
#include "formats/statistics/statistics_record.h"
#include "runtime/pass/evaluator.h"

namespace quern {

// Error feedback of a build: from the statistics of a folder, or from statistics that are collected from a text while it is made.

struct FeedbackOptions {
  std::string mode;                  // "on", "sequential"; empty: what the statistics are for, or none
  std::filesystem::path statistics;  // folder
  std::filesystem::path text;
  int64_t tokens = 131072;  // of the text

  bool wanted() const noexcept { return !mode.empty() || !statistics.empty(); }
  bool live() const noexcept { return !mode.empty() && statistics.empty(); }
};

// A text as LiveStatistics runs it, with its record.
struct CalibrationText {
  std::vector<Sequence> chunks;
  StatisticsRecord record;
};

// The first `tokens` of the text in chunks of ctx, rounded up to whole ones. model: the path that was opened, whose name goes into the
// record. mode: kOriginalMode or kSequentialMode.
CalibrationText load_calibration_text(const ModelSource& source, const std::filesystem::path& model, const std::filesystem::path& text,
                                      int64_t tokens, int64_t ctx, const char* mode);

// What a build needs of these options. memory_bytes: for running the model, when there is a text; numbers of one layer at a time are kept
// in a temporary folder. model: the path that `source` was opened from. The source outlives the result. Throws kUsage when the options
// contradict each other or the statistics are of another mode.
std::unique_ptr<BuildFeedback> make_feedback(const FeedbackOptions& options, const ModelSource& source, const std::filesystem::path& model,
                                             uint64_t memory_bytes);

}  // namespace quern
