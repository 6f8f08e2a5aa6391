#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/statistics/imatrix.h"
#include "verify/drift/drift_report.h"
#include "verify/records/manifest.h"
#include "verify/report/making.h"

namespace quern {

// report.html: what builds of a model are worth, for people. One file that needs no network and no script, readable on a phone, in
// light and dark and on paper. Everything in it may come from somebody else's file and is escaped; same input, same bytes.

struct ReportTensor {
  std::string name = {};
  std::string type = {};
  int64_t n_weights = 0;
  bool exact = false;
  double relative_error = 0.0;
};

struct ReportBuild {
  std::string name = {};  // short: "Q4_K_M"
  uint64_t size_bytes = 0;
  double bits_per_weight = 0.0;
  bool lossless = false;
  std::string recipe = {};
  std::string made_by = {};                   // version of quern, empty when not known
  std::optional<double> relative_error = {};  // over all weights
  std::optional<DriftRow> measured = {};      // what the build does to predictions
  std::vector<FileRecord> files = {};         // empty when only measured
  std::vector<ReportTensor> tensors = {};     // floats only; empty when not known
  std::optional<FeedbackFacts> feedback = {};
};

// How well the calibration text reached the experts of one layer.
struct ExpertCoverage {
  int64_t layer = 0;
  int64_t n_experts = 0;
  int64_t n_unseen = 0;  // by no token
  int64_t n_few = 0;     // by fewer than kFewRows tokens, the unseen ones among them
  int64_t min_tokens = 0;
  double median_tokens = 0.0;
};

inline constexpr const char* kCheckpointKind = "checkpoint";
// A file that went in: kind (kCheckpointKind, "imatrix", "recipe", "calibration text"), name (empty: not published), SHA-256 (may be
// empty).
struct ReportInput {
  std::string kind = {}, name = {}, sha256 = {};
};

struct Report {
  std::string origin = {};      // name of the file it was read from, for comparisons
  std::string model = {};       // title
  std::string base_model = {};  // hub id, revision: empty when not known
  std::string revision = {};
  std::string made_by = {};  // version of quern that made the builds, empty when not known
  std::string text = {};     // evaluation text, empty when not known
  int64_t n_ctx = 0, n_chunks = 0;
  std::optional<DriftRow> noise_floor = {};
  std::vector<ReportBuild> builds = {};  // small ones first
  std::vector<ExpertCoverage> coverage = {};
  std::vector<ReportInput> inputs = {};
  bool has_manifest = false;  // the folder can be verified: say how
  std::string key_id = {};    // of the key that its signature names; empty: not signed
  bool beside_files = false;  // the page will lie in the folder of the manifest: its files can be linked
};

// A report from measurements; `records` (may be empty) adds tensors, files and recipes of the builds whose files have the same names.
Report report_from_drift(const DriftReport& drift, const std::vector<BuildRecord>& records);

Report report_from_manifest(const Manifest& manifest);

// Experts per layer with their counts, from a matrix whose counts are tokens; nothing from one that only counts chunks.
std::vector<ExpertCoverage> expert_coverage(const Imatrix& imatrix);

// What a mean KL means, in a few words; the classes of docs/read-a-drift-report.md.
std::string verdict(const ReportBuild& build, const std::optional<DriftRow>& noise_floor);
// The build that makes this one pointless: not larger and not further from the original, and better in one. Else null.
const ReportBuild* better_choice(const Report& report, const ReportBuild& build);

// "Take the largest file that fits your memory. ...": for someone who knows nothing of quantization.
std::string summary_sentence(const Report& report);

// A manifest.json or the JSON of quern drift, by its schema; records as for report_from_drift(). An imatrix that the manifest names
// and the signature are read from beside it, if they are there. Throws kIo, kFormat.
Report read_report(const std::filesystem::path& path, const std::vector<BuildRecord>& records);

std::string report_html(const Report& report);
// Two reports side by side. Builds of the same name are compared; the only build of one with the only build of the other whatever
// their names.
std::string comparison_html(const Report& before, const Report& after);

}  // namespace quern
