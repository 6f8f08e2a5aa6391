#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "verify/drift/drift.h"

namespace quern {

// A drift report: the figures of all builds over one text, as `quern drift --json` prints it and a manifest holds it. "quern.drift/1",
// docs/formats/drift.md.

inline constexpr const char* kNoiseFloorName = "(noise floor)";

struct DriftRow {
  std::string name;         // of the (first) file, or kNoiseFloorName
  uint64_t size_bytes = 0;  // 0: not a file
  double bits_per_weight = 0;
  ModelDrift drift;
};

struct DriftReport {
  std::string original;  // what the builds were compared with
  std::string text;      // name of the text without folders, empty when the reference was a stored one
  int64_t n_ctx = 0;
  int64_t n_chunks = 0;
  std::vector<DriftRow> rows;         // the noise floor first, if it was measured
  std::vector<std::string> warnings;  // why figures are doubtful
  uint64_t bytes_read = 0;
};

// kTokens adds the figures of every token and chunk and what the run cost; kSummary is the same for every run.
enum class DriftDetail { kSummary, kTokens };
std::string drift_to_json(const DriftReport& report, DriftDetail detail);

// Reads either detail, single tokens left out. A file from before kl_histogram was written gets its histogram from the tokens.
// null stands for a number that is not finite. Throws kFormat.
DriftReport drift_from_json(std::string_view text);

}  // namespace quern
