#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "convert/plan/plan.h"

namespace quern {

// Where everything lies in the files of an output.

// Divides the tensors of an output into files of at most split_bytes of padded data each (0: one file), with a first one that has none
// when metadata_shard is set and there are several; a larger tensor has a file of its own. Then names the files and places the tensors.
void lay_out(const Plan& plan, uint64_t split_bytes, bool metadata_shard, PlannedOutput& output);

// What one file of an output says about itself and, when it is the first, about the model.
Metadata file_metadata(const Plan& plan, const PlannedOutput& output, size_t file);
// The header of one file of an output, ready to be written at offset 0.
std::vector<std::byte> file_header(const Plan& plan, const PlannedOutput& output, size_t file);

// Throws kFormat when a name, size or offset is not what planning gives to the plan's tensors, types and metadata.
void check_layout(const Plan& plan);

// SHA-256 over everything that decides the bytes of the outputs and the division into chunks; ties journals and parts to a plan.
std::string plan_id(const Plan& plan);

}  // namespace quern
