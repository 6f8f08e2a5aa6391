#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convert/plan/calibration.h"
#include "formats/base/file.h"
#include "formats/base/progress.h"
#include "formats/model/model_source.h"
#include "quantize/tensor_encoder.h"
#include "recipes/recipe.h"
#include "runtime/pass/evaluator.h"
#include "verify/fit/fit.h"

namespace quern {

// The whole of `quern fit`: from texts and sizes to recipes in files (docs/fit.md).

// A size that is wanted, and where its recipe goes.
struct FitSize {
  std::string name;  // as people wrote it, "96GB": it is part of the recipe's name
  uint64_t limit_bytes = 0;
  std::filesystem::path recipe;
};

// "fit-96GB": of the recipe for a size that people wrote so, "96GB" or "96 GB".
std::string recipe_name(std::string_view size);

struct FitJobOptions {
  std::filesystem::path model;  // that was opened
  std::vector<FitSize> sizes;
  std::filesystem::path calib_text;
  std::filesystem::path check_text;  // empty: the last fifth of the chunks of calib_text, on which nothing is measured
  int64_t ctx = 512;                 // tokens per chunk
  int64_t chunks = 16;               // to measure on, spread evenly over the text
  int64_t check_chunks = 64;         // to judge on, likewise
  int64_t probes = 128;              // builds measured at most
  int rounds = 1;                    // of refinement per size
  std::filesystem::path cache;       // folder where sensitivities are kept; empty: nowhere
  OutputFile::Overwrite overwrite = OutputFile::Overwrite::kRefuse;
  EvalOptions eval;  // a quarter of the memory is for encoded blocks
};

// What became of a size, in the order of FitJobOptions::sizes.
struct FittedSize {
  FitSize size;
  FitResult result;
};

inline constexpr uint64_t kFitReserveBytes = 4096;

class FitJob {
 public:
  // Reads the texts. calibration: what the builds will be encoded with; it and source outlive the job. Throws kUsage when a size is below
  // the smallest that there is, or the calibration text cannot be divided.
  FitJob(const ModelSource& source, const Calibration& calibration, FitJobOptions options);

  int64_t n_measuring() const noexcept { return std::ssize(measuring_); }  // chunks
  int64_t n_checking() const noexcept { return std::ssize(checking_); }

  // Measures, searches, judges and writes the recipes. Files made of them have at most their size, with kFitReserveBytes for the keys that
  // publishing adds (names, licence, the original). Sensitivities that were kept for the same model, text and encoders are used again;
  // notes say so, or how long everything will take. A cache that cannot be read or written is a warning.
  std::vector<FittedSize> run(Progress& progress);

 private:
  struct Measured;
  void check_sizes() const;
  uint64_t file_size(const FitSize& size, const TypeAssignment& types) const;
  double encoded_weights(std::span<const TypeAssignment> builds) const;
  double forecast_seconds(std::span<const TypeAssignment> probes, const SimulatedBuilds& builds, double seconds_per_weight) const;
  std::string measurement_key() const;
  Measured measure(BlockCache& blocks, const EvalOptions& eval, Progress& progress) const;
  std::vector<FitBuild> plain_builds() const;
  Recipe recipe_of(const FitSize& size, const TypeAssignment& types, Estimate checked) const;
  std::string notes_text(Estimate checked) const;

  const ModelSource& source_;
  const Calibration& calibration_;
  const FitJobOptions options_;
  const TensorEncoder encoder_;
  std::vector<Sequence> measuring_, checking_;
};

// "quern.fit/1".
std::string fit_to_json(std::span<const FittedSize> sizes);

}  // namespace quern
