#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "convert/fill/output_writer.h"
#include "convert/fill/pipeline.h"
#include "convert/plan/calibration.h"
#include "convert/plan/plan.h"
#include "formats/base/progress.h"
#include "formats/model/model_source.h"

namespace quern {

// A model to files: every output of a plan from one read of the source.

struct FileReport {
  std::string name;  // relative to the folder of the outputs
  uint64_t size_bytes = 0;
  std::string sha256;
};

// A tensor of an output that has weights beyond the range of binary16, cut.
struct CutReport {
  std::string tensor;
  DType type = DType::F32;
  Cut cut;
};

struct OutputReport {
  std::string mix;
  std::vector<FileReport> files;
  uint64_t size_bytes = 0;     // of all files
  double bits_per_weight = 0;  // tensor data without padding
  double encode_seconds = 0;   // processor time summed over threads
  double relative_error = 0;   // sqrt(squared error / energy), over all float tensors
  bool lossless = false;       // proved, not promised
  int64_t exact_tensors = 0;   // every weight has the bits of the source's
  int64_t exact_weights = 0;
  std::vector<CutReport> cuts;
};

// What error feedback did to the outputs of a tensor that was encoded with it.
struct FeedbackReport {
  std::string tensor;
  FeedbackLog::Outcome outcome;
};

struct ConvertReport {
  std::vector<OutputReport> outputs;
  std::vector<FeedbackReport> feedback;
  std::vector<std::string> zero_tensors;     // matrices of which every weight, or every weight of some slices, is zero in the source
  std::vector<std::string> notes, warnings;  // of the plan
  uint64_t stored_bytes = 0;                 // of the tensors that were converted
  uint64_t bytes_read = 0;
  double seconds = 0;
};

// Runs the whole plan, or what an earlier run left of it (convert/fill/run_files.h): the bytes are the same. Nothing has its final name
// before all outputs are complete. Bad input removes what was begun. AtEnd: of several runs that belong together, the journals are
// remembered until all are done and forget_run() was called for each; so the next attempt finds that the first ones are.
enum class AtEnd { kForget, kRemember };
ConvertReport run_plan(const ModelSource& source, const Plan& plan, Progress& progress, const Calibration& calibration = {},
                       AtEnd at_end = AtEnd::kForget);
void forget_run(const Plan& plan);

// The steps after the data of all outputs is written, shared with merging: names the files and writes the lists beside them.
void publish_outputs(const Plan& plan, std::vector<std::unique_ptr<OutputWriter>>& writers, const std::vector<FinishedOutput>& finished,
                     const std::vector<TensorFigures>& figures);

std::vector<OutputReport> report_outputs(const Plan& plan, const std::vector<FinishedOutput>& finished,
                                         const std::vector<TensorFigures>& figures, const std::vector<double>& encode_seconds);

// Names of matrices that are zero in the source; of a stack with how many of its slices are, when not all of them.
std::vector<std::string> find_zero_tensors(const Plan& plan, const std::vector<TensorFigures>& figures);

}  // namespace quern
