#include "verify/calibrate/collect.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "convert/plan/planned_build.h"
#include "formats/base/checked.h"
#include "verify/calibrate/live_statistics.h"

namespace quern {
namespace {

EvalOptions observed_by(ActivationObserver& observer, EvalOptions options, uint64_t memory_bytes) {
  options.observer = &observer;
  options.memory_bytes -= memory_bytes;
  return options;
}

}  // namespace

ImatrixRun::ImatrixRun(const ModelSource& source, const EvalOptions& options)
    : collector_(source.tensors()),
      sums_bytes_(std::min(collector_.memory_bytes(), options.memory_bytes)),
      evaluator_(source, observed_by(collector_, options, sums_bytes_)) {}

Imatrix ImatrixRun::collect(const ChunkedText& text, const std::string& text_name, Progress& progress) {
  evaluator_.forward(text.chunks, progress);
  Imatrix imatrix = collector_.take();
  imatrix.datasets = {text_name};
  imatrix.chunk_count = std::ssize(text.chunks);
  imatrix.chunk_size = std::ssize(text.chunks.front().tokens);
  return imatrix;
}

uint64_t statistics_bytes(std::span<const LogicalTensor> tensors) {
  std::set<std::tuple<int64_t, int64_t, int64_t>> inputs;  // weights of a layer that multiply the same input have these in common
  for (const LogicalTensor& tensor : tensors) {
    if (tensor.keep != Keep::kMix || tensor.shape.rank() < 2 || tensor.role == Role::kTokenEmbedding) continue;
    inputs.insert({tensor.layer, tensor.shape.row_length(), tensor.n_slices});
  }
  uint64_t bytes = 0;
  for (const auto& [layer, n_columns, n_slices] : inputs) {
    const auto n = static_cast<uint64_t>(n_columns);
    bytes += checked_mul(checked_mul(2 * n, n, "statistics"), static_cast<uint64_t>(n_slices), "statistics");
  }
  return bytes;
}

void collect_statistics(const ModelSource& source, const CalibrationText& text, const StatisticsRunOptions& options, Progress& progress) {
  ImatrixCollector collector(source.tensors());
  auto statistics = std::make_unique<LiveStatistics>(source,
                                                     LiveStatistics::Options{.eval = options.eval,
                                                                             .chunks = text.chunks,
                                                                             .folder = options.folder,
                                                                             .overwrite = options.overwrite,
                                                                             .keep = true,
                                                                             .also_observes = &collector,
                                                                             .progress = &progress},
                                                     text.record);
  LiveStatistics& live = *statistics;
  FeedbackEncoder feedback(std::move(statistics), source.tensors(), kFactorCacheBytes);
  const TensorEncoder encoder(source, nullptr, Effort::kDefault, &feedback);
  if (options.build) live.follow(plan_builds(source, options.model, {*options.build}, {}).front().types, encoder);
  live.run_rest();
  Imatrix imatrix = collector.take();
  imatrix.datasets = {text.record.text};
  imatrix.chunk_count = std::ssize(text.chunks);
  imatrix.chunk_size = text.record.ctx;
  write_imatrix(imatrix, ImatrixFormat::kGguf, options.folder / "imatrix.gguf", OutputFile::Overwrite::kAllow);
  live.finish();
}

}  // namespace quern
