#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "convert/plan/planned_build.h"
#include "formats/base/file.h"
#include "formats/base/progress.h"
#include "formats/model/model_source.h"
#include "quantize/tensor_encoder.h"
#include "verify/drift/chunked_text.h"
#include "verify/drift/drift.h"
#include "verify/drift/drift_report.h"

namespace quern {

// One measurement: an original, or what was kept of one, and builds that are compared with it one after the other. Every build becomes a
// row of the report.
//
//   const ChunkedText text = load_text(*original, {.file = "wiki.test.raw"});
//   DriftJob job(*original, "DeepSeek-V4-Flash", "wiki.test.raw", text, {}, progress);
//   job.add(*build, "Q4_K_M.gguf", size_on_disk(*build), progress);
//   std::string json = drift_to_json(job.report(), DriftDetail::kSummary);
class DriftJob {
 public:
  // Runs the original over the chunks, twice with one reading: the first row is its noise floor (drift.h). original outlives the job;
  // name and text_name stand in the report. Builds get the memory of `options` less what the original's states keep.
  DriftJob(const ModelSource& original, std::string name, std::string text_name, const ChunkedText& text, const EvalOptions& options,
           Progress& progress);
  // Against stored distributions (open_reference), which have no noise floor.
  DriftJob(std::unique_ptr<ReferenceDistribution> reference, std::string name, const EvalOptions& options);

  // Keeps the original's distributions: as "quern.reference/1" when the name ends in .h5 or .hdf5 (reference_file.h), else as the file of
  // llama-perplexity (base_file.h). For a job that ran an original over `text`.
  void save_reference(const std::filesystem::path& path, const ChunkedText& text, OutputFile::Overwrite overwrite);

  // Measures a build. name: of its row. Throws kFormat when its vocabulary is not the original's.
  void add(const ModelSource& build, std::string name, uint64_t size_bytes, Progress& progress);
  // A build that was not written: it is encoded layer by layer while it is measured. For a job that ran an original, whose tensors
  // `encoder` encodes.
  void add_simulated(const PlannedBuild& build, const TensorEncoder& encoder, Progress& progress);

  // Why figures are doubtful, for the report.
  void warn(std::string warning) { report_.warnings.push_back(std::move(warning)); }
  int64_t n_vocab() const noexcept { return reference_->n_vocab(); }
  const DriftReport& report();

 private:
  const ModelSource* source_ = nullptr;  // of the original, when it was run
  OriginalModel* original_ = nullptr;    // it is the reference
  std::unique_ptr<ReferenceDistribution> reference_;
  EvalOptions options_;
  DriftReport report_;
  uint64_t build_bytes_read_ = 0;
};

// What running the original takes (the first constructor of DriftJob). Reads no weights.
EvalPlan plan_original(const ModelSource& original, const ChunkedText& text, const EvalOptions& options);

// A file of DriftJob::save_reference. build: any of those that will be measured; it tells whether its kind of model begins texts with BOS,
// which a base file does not say.
std::unique_ptr<ReferenceDistribution> open_reference(const std::filesystem::path& path, const std::filesystem::path& build);

// What builds must have in common with the original.
struct ComparisonBasis {
  int64_t n_vocab = 0;
  const std::vector<std::string>* tokens = nullptr;  // texts of the vocabulary, when they are known
  std::string tokens_sha256;                         // or their sum; empty: not known
  std::span<const Sequence> chunks;
};
ComparisonBasis basis_of(const ModelSource& original, const ChunkedText& text);
ComparisonBasis basis_of(const ReferenceDistribution& reference);

// Before the original is run, which takes hours: whether all builds are there and have its vocabulary. Throws naming the build, kFormat for
// another number of tokens and for a tokenizer in which the numbers of the text stand for something else. Returns what makes figures
// doubtful, one line each.
std::vector<std::string> check_comparable(std::span<const std::string> paths, const ComparisonBasis& basis);

// Of a measured build: that it predicts worse than chance though the original does not, which no rounding does; empty when it does not.
std::string worse_than_chance(const DriftStatistics& statistics, int64_t n_vocab);

// A type in which a model that is taken for an original has already lost something, which then is not measured; empty: none. MXFP4 is what
// some models are released in.
std::optional<DType> lossy_type(const ModelSource& original);

}  // namespace quern
