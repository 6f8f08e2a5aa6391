#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "convert/convert.h"

namespace quern {

// The lists beside the outputs: STEM.tensors.json per output (every tensor with its place and checksums, docs/formats/plan.md) and
// SHA256SUMS over all files, which keeps the lines of files from earlier runs.
void write_lists(const Plan& plan, const std::vector<FinishedOutput>& finished, const std::vector<TensorFigures>& figures);

// The list of one output as text.
std::string tensor_list(const Plan& plan, size_t output, const FinishedOutput& finished, const std::vector<TensorFigures>& figures);

// Adds or replaces lines of FOLDER/SHA256SUMS, in the format of sha256sum, sorted by name. Lines whose file is gone are dropped.
void update_sums(const std::filesystem::path& folder, const std::map<std::string, std::string>& sha256_by_name);

}  // namespace quern
