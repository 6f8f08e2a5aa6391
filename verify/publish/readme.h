#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/gguf/metadata.h"
#include "verify/drift/drift_report.h"
#include "verify/records/manifest.h"

namespace quern {

// README.md of a published folder: the front matter that hubs read, and for people which file to take, what it lost, how it was made
// and how to check it. Everything in it follows from the manifest, the metadata of the model and the drift report.

// Tokens of context that the advice counts with: 8192, or what the model was trained for if that is less.
int64_t advice_context(const Metadata& metadata);

// The largest build that a machine runs.
struct MachineAdvice {
  std::string machine;
  std::string label;  // of the build; empty: none fits
  uint64_t left_bytes = 0;
  double tokens_per_second = 0;  // an upper bound
};

// What the row of a build is named after: its first file, without folders.
std::string drift_row_name(const BuildRecord& build);

struct ReadmeFacts {
  const Manifest* manifest = nullptr;
  Metadata metadata;                    // of the model: name, architecture, licence, languages, tags
  std::optional<DriftReport> drift;     // one row per build, named after its first file
  std::string quantized_by;             // empty: not said
  std::string key_id;                   // of the key that signs the folder; empty: not signed
  std::vector<MachineAdvice> machines;  // empty: none given
};

std::string make_readme(const ReadmeFacts& facts);

}  // namespace quern
