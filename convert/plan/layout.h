#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "convert/plan/plan.h"
#include "formats/base/sha256.h"

namespace quern {

// Where everything lies in the files of an output.

// Divides the tensors of an output into files of at most split_bytes of padded data each (0: one file), with a first one that has none
// when metadata_shard is set and there are several; a larger tensor has a file of its own. Then names the files and places the planes of
// the tensors, all of which the output's container holds.
void lay_out(const Plan& plan, uint64_t split_bytes, bool metadata_shard, PlannedOutput& output);

// The side files of an output that is laid out.
void add_side_files(const Plan& plan, PlannedOutput& output);

// What is known of the model and of how an output was made: the keys of the plan with those of the output.
Metadata metadata_of(const Plan& plan, const PlannedOutput& output);
// The header of one file of an output, ready to be written at offset 0.
std::vector<std::byte> file_header(const Plan& plan, const PlannedOutput& output, size_t file);
// What the header of the first file holds, as it is recorded.
ValueSums recorded_values(const Plan& plan, const PlannedOutput& output);

// Throws kFormat when a name, size or offset is not what planning gives to the plan's tensors, types and metadata.
void check_layout(const Plan& plan);

// SHA-256 over everything that decides the bytes of the outputs and the division into chunks; ties journals and parts to a plan.
std::string plan_id(const Plan& plan);

// Adds to `hash` the names of an output's files with everything in them that is no tensor.
void add_files(const Plan& plan, const PlannedOutput& output, Sha256& hash);

}  // namespace quern
