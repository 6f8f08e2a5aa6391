#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "convert/fill/figures.h"
#include "convert/fill/sums.h"
#include "convert/plan/plan.h"
#include "convert/record/build_record.h"

namespace quern {

// The lists beside the outputs: STEM.tensors.json per output (every tensor with its place and checksums, docs/formats/manifest.md) and
// SHA256SUMS over all files, which keeps the lines of files from earlier runs.
void write_lists(const Plan& plan, const std::vector<FinishedOutput>& finished, const std::vector<TensorFigures>& figures);

// What is known of one output.
BuildRecord build_record(const Plan& plan, size_t output, const FinishedOutput& finished, const std::vector<TensorFigures>& figures);

// Adds or replaces lines of FOLDER/SHA256SUMS, in the format of sha256sum, sorted by name. Lines whose file is gone are dropped.
void update_sums(const std::filesystem::path& folder, const std::map<std::string, std::string>& sha256_by_name);

}  // namespace quern
