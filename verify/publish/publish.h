#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "convert/plan/plan.h"
#include "formats/base/progress.h"
#include "formats/model/model_source.h"
#include "verify/records/manifest.h"
#include "verify/records/signature.h"

namespace quern {

// The steps of publishing a folder. Each leaves something that can be checked, so that an interrupted publication goes on where it
// stopped; the documents come last, and none holds a time, a path or anything else that is not the same on the next run.

inline constexpr const char* kReadmeName = "README.md";
inline constexpr const char* kReportName = "report.html";

// What an unfinished publication knows that is not in the folder's other files, in a hidden file beside them.
struct PublishState {
  std::string id;  // follows from the plan and the options: two publications of one id give the same bytes
  std::vector<SourceRecord> sources;
  std::string drift;  // "quern.drift/1"
};
std::optional<PublishState> read_state(const std::filesystem::path& folder);  // empty when there is none, or an unreadable one
void write_state(const std::filesystem::path& folder, const PublishState& state);
void remove_state(const std::filesystem::path& folder);

// The record of an output of the plan, when it lies complete and undamaged in the plan's folder. Reads its files.
std::optional<BuildRecord> finished_build(const Plan& plan, const PlannedOutput& output, Progress& progress);

// Sums of every file that was read of a model, those with tensors first, from one sequential reading. model: the path that `source` was
// opened from.
std::vector<SourceRecord> hash_sources(const ModelSource& source, const std::filesystem::path& model, Progress& progress);

// Writes manifest.json, removes the *.tensors.json that it takes the place of, then writes SHA256SUMS over all files of the folder
// and, with a key, the attestation over all of them and SHA256SUMS. Files of builds have the sums that the manifest gives; the others
// are read. Replaces what is there.
void write_documents(const std::filesystem::path& folder, const Manifest& manifest, const Ed25519Key* key);

}  // namespace quern
