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

// Tokens per chunk of a calibration text, as quern statistics takes unless told otherwise.
inline constexpr int64_t kCalibrationContext = 512;

// Error feedback of a build: from the statistics of a folder, or from statistics that are collected from a text while it is made.

struct FeedbackOptions {
  std::string mode;                  // "off", "on", "sequential"; empty: what the statistics are for, "on" with a text alone, else "off"
  std::filesystem::path statistics;  // folder that stays; its record goes into the builds
  std::filesystem::path text;
  int64_t tokens = 131072;               // of the text
  std::filesystem::path collected = {};  // folder with what collect_statistics() made of text and tokens; empty: nowhere

  bool wanted() const noexcept { return mode != "off" && (!mode.empty() || !statistics.empty() || !text.empty()); }
  bool live() const noexcept { return wanted() && statistics.empty(); }
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
// contradict each other or the statistics are of another mode or text.
std::unique_ptr<BuildFeedback> make_feedback(const FeedbackOptions& options, const ModelSource& source, const std::filesystem::path& model,
                                             uint64_t memory_bytes);

}  // namespace quern
