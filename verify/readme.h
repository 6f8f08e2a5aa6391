#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/metadata.h"
#include "verify/drift_report.h"
#include "verify/manifest.h"

namespace quern {

// README.md of a published folder: the front matter that hubs read, and for people which file to take, what it lost, how it was made
// and how to check it. Everything in it follows from the manifest, the metadata of the model and the drift report.

struct ReadmeFacts {
  const Manifest* manifest = nullptr;
  Metadata metadata;                 // of the model: name, architecture, licence, languages, tags
  std::optional<DriftReport> drift;  // one row per build, named after its first file
  std::string quantized_by;          // empty: not said
  bool is_signed = false;
  std::vector<std::string> memory_advice;  // lines "which file for which memory", when a planner gave them
};

std::string make_readme(const ReadmeFacts& facts);

}  // namespace quern
