#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "formats/base/progress.h"
#include "formats/model/model_source.h"
#include "verify/calibrate/feedback.h"
#include "verify/fit/fit_job.h"

namespace quern {

// What a publication makes of its calibration text before its builds can be planned: the importance matrix, when error feedback is
// declined; and for every size that is wanted the recipe that fit finds (docs/fit.md), with the same text and the encoders of the builds.
// It lies in the hidden folder ".quern-work" of the publication until that is complete, so that an interrupted one does not begin again.

// Statistics of at most this size are kept for fit; those of larger models fit does without, and measures with importance alone.
inline constexpr uint64_t kMostStatisticsBytes = uint64_t{64} << 30;

struct PreparationOptions {
  std::filesystem::path model;
  ModelOptions about;
  std::filesystem::path folder;    // of the publication
  std::vector<std::string> sizes;  // "96GB"
  std::filesystem::path imatrix;   // given; empty: none
  bool strict = false;
  FeedbackOptions feedback;   // of the builds
  uint64_t memory_bytes = 0;  // 0: default_evaluation_memory()
};

class Preparation {
 public:
  // Opens the model and cuts the text; reads no weights. Throws kUsage when there is no text for what is wanted of it, or no file of a
  // size.
  explicit Preparation(PreparationOptions options);
  ~Preparation();

  bool is_needed() const noexcept { return fits() || collects_imatrix(); }
  // What will be done, a line each.
  std::vector<std::string> steps() const;
  const std::vector<FitSize>& sizes() const noexcept { return sizes_; }

  // Does it, less what an earlier attempt left complete.
  void run(Progress& progress);

  // After run(): with what the builds are to be made.
  std::filesystem::path imatrix() const;
  FeedbackOptions feedback() const;
  std::vector<std::filesystem::path> recipes() const;  // of the sizes, in order

 private:
  bool fits() const noexcept { return !options_.sizes.empty(); }
  bool collects_imatrix() const;
  bool collects_statistics() const;
  void collect_imatrix(Progress& progress);
  void collect(Progress& progress);
  FitJobOptions fit_options() const;
  void fit(Progress& progress);
  uint64_t memory_bytes() const;

  PreparationOptions options_;
  std::unique_ptr<ModelSource> source_;
  std::vector<FitSize> sizes_;
};

// Removes what preparations left in a folder that is complete.
void remove_preparation(const std::filesystem::path& folder);

}  // namespace quern
