#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/plan/plan.h"

namespace quern {

// The steps of planning that only look for problems. Each appends what it finds.

// "REGEX=TYPE" taken apart at the last '='. Entries that cannot be read are reported and left out.
std::vector<RecipeRule> parse_overrides(const std::vector<std::string>& tensor_types, std::vector<Problem>& problems);

// The mixes that are known, each once.
std::vector<const Mix*> parse_types(const std::vector<std::string>& types, std::vector<Problem>& problems);

// Types that cannot be written, overrides that decide nothing.
void check_types(const Plan& plan, std::vector<Problem>& problems);

// Files in the way, a folder inside the source, two outputs of one name, too little space.
void check_files(const Plan& plan, const ModelSource& source, std::vector<Problem>& problems);

// A budget below what one chunk of the widest tensor needs; smallest_bytes is the least that works.
void check_memory(const Plan& plan, uint64_t smallest_bytes, std::vector<Problem>& problems);

// Throws kFormat when a name, size or offset is not what planning gives to the plan's tensors, types and metadata.
void check_layout(const Plan& plan);

// SHA-256 of the file's first and last 64 KiB.
std::string fingerprint(const std::filesystem::path& file);

}  // namespace quern
