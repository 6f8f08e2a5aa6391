#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "formats/base/file.h"
#include "formats/base/progress.h"
#include "formats/model/model_source.h"
#include "formats/statistics/imatrix.h"
#include "recipes/recipe.h"
#include "runtime/observe/imatrix_collector.h"
#include "runtime/pass/evaluator.h"
#include "verify/calibrate/feedback.h"
#include "verify/drift/chunked_text.h"

namespace quern {

// Statistics of a model's inputs from one run over a text, to be kept: `quern imatrix` and `quern statistics`.

// Importance matrices (docs/imatrix.md).
class ImatrixRun {
 public:
  // source outlives this. The sums take their part of options.memory_bytes.
  ImatrixRun(const ModelSource& source, const EvalOptions& options);

  uint64_t sums_bytes() const noexcept { return sums_bytes_; }
  EvalPlan plan(std::span<const Sequence> chunks) const { return evaluator_.plan(chunks); }

  // text_name: that the matrix gives as its data set. Once.
  Imatrix collect(const ChunkedText& text, const std::string& text_name, Progress& progress);

 private:
  ImatrixCollector collector_;
  const uint64_t sums_bytes_;
  Evaluator evaluator_;
};

// What statistics of a model with these tensors take on disk, about: 2 n^2 bytes for each input of n columns and each slice that has its
// own.
uint64_t statistics_bytes(std::span<const LogicalTensor> tensors);

struct StatisticsRunOptions {
  std::filesystem::path model;  // that was opened
  std::filesystem::path folder;
  std::optional<Recipe> build;  // that the statistics follow, which makes their mode sequential; empty: the original
  OutputFile::Overwrite overwrite = OutputFile::Overwrite::kRefuse;
  EvalOptions eval;
};

// Second moments for error feedback and, from the same run, an importance matrix, into the folder (docs/formats/statistics.md).
// text: of the mode that options.build means. The list is written last: with it the folder is complete.
void collect_statistics(const ModelSource& source, const CalibrationText& text, const StatisticsRunOptions& options, Progress& progress);

}  // namespace quern
