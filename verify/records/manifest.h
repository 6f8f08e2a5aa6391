#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "convert/record/build_record.h"

namespace quern {

// manifest.json of a published folder, "quern.manifest/1" (docs/formats/manifest.md): where the builds come from, how they were made
// and what every byte of them is.

inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kSumsName = "SHA256SUMS";
inline constexpr const char* kAttestationName = "attestation.intoto.jsonl";

struct SourceRecord {
  std::string name;  // relative to the checkpoint folder
  uint64_t size_bytes = 0;
  std::string sha256;
};

// The kind of an input that stands in the builds in place of the checkpoint's chat template.
inline constexpr const char* kTemplateInput = "chat template";

// What builds were made or measured with: statistics ("imatrix", published beside the builds), texts ("calibration text",
// "evaluation text", kTemplateInput), of which only the sum is published.
struct InputRecord {
  std::string kind;
  std::string name;         // of the published file; empty when the file itself is not published
  uint64_t size_bytes = 0;  // 0 when only the sum is known
  std::string sha256;
};

struct Manifest {
  std::string quern_version;
  std::string base_model;  // hub id, empty when not given
  std::string revision;    // of base_model, empty when not given
  std::vector<SourceRecord> sources;
  std::vector<InputRecord> inputs;
  std::string drift;  // the JSON object "quern.drift/1" without single tokens; empty when not measured
  std::vector<BuildRecord> builds;
};

std::string manifest_to_json(const Manifest& manifest);
Manifest manifest_from_json(std::string_view text);  // throws kFormat
Manifest read_manifest(const std::filesystem::path& file);

// Lines "HASH  NAME" of a SHA256SUMS file, as sha256sum writes and reads them. Throws kFormat naming the line.
struct Sum {
  std::string name;
  std::string sha256;
};
std::vector<Sum> parse_sums(std::string_view text);

}  // namespace quern
