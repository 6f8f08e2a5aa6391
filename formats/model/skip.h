#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/model/model_source.h"

namespace quern {

// Stored tensors of a checkpoint that have no use in the model and would stop its opening are left out on purpose, found by regular
// expressions. A build records them, so that whoever derives it again leaves out the same.

// open_model() without them. Throws kUsage for an expression that finds a tensor which the model needs, or none, and for a GGUF file, which
// has only tensors of its model. The source's notes say what was left out.
std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path, const ModelOptions& options, std::span<const std::string> skip);

// The key of a build under which they are recorded, a list of strings, and what it says there.
inline constexpr const char* kSkipKey = "quern.skip";
inline std::vector<std::string> recorded_skip(const Metadata& of_build) {
  const std::vector<std::string>* skip = of_build.find_string_array(kSkipKey);
  return skip == nullptr ? std::vector<std::string>() : *skip;
}

}  // namespace quern
