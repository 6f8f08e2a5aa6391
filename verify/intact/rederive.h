#pragma once

#include <string>
#include <vector>

#include "formats/base/progress.h"
#include "formats/model/model_source.h"
#include "formats/statistics/importance.h"
#include "quantize/feedback/feedback_encoder.h"
#include "verify/records/published.h"
#include "verify/records/setting_keys.h"

namespace quern {

// The proof that a build is what it says: its tensors are made again from the original checkpoint, with the types, encoders and
// statistics that the record names, and compared byte by byte with the files. A sample takes a share of the chunks of every tensor,
// at least one, chosen by the seed: damage that touches a share s of a tensor's chunks escapes n samples with probability (1 - s)^n.

struct RederiveOptions {
  double sample = 1.0;
  std::optional<std::string> tensors;  // regular expression, searched in the name
  uint64_t seed = 0;
  FeedbackEncoder* feedback = nullptr;  // for builds with error feedback, when its statistics are here
};

struct RederiveCount {
  int64_t n_tensors = 0;        // of which something was derived again
  int64_t n_chunks = 0;         // derived again
  int64_t n_chunks_in_all = 0;  // of those tensors
  uint64_t source_bytes = 0;
};

// One type per tensor of the source: those that the build gives them; what it leaves out stays as it is.
std::vector<DType> recorded_types(const BuildRecord& build, const ModelSource& source);

// importance: what the build was encoded with, empty for uniform. Adds a finding per tensor that differs (kDamage) and one per reason
// why tensors cannot be derived again by this version (kUnprovable).
RederiveCount rederive(const PublishedFolder& folder, const BuildRecord& build, const ModelSource& source, const Importance& importance,
                       const RederiveOptions& options, std::vector<Finding>& findings, Progress& progress);

// How deep the encoders of a build searched, by its record.
Effort effort_of(const BuildRecord& build);

}  // namespace quern
