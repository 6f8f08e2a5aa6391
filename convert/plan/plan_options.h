#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/containers/container.h"
#include "quantize/plain/encode.h"
#include "recipes/recipe.h"

namespace quern {

// What is wanted of a conversion. What steers the encoders is given beside it (convert/plan/calibration.h).
struct PlanOptions {
  std::filesystem::path output;  // folder of the outputs; with single_file the output itself
  bool single_file = false;
  const Container* container = &default_container();
  std::vector<std::string> types;         // names of mixes
  std::vector<Recipe> recipes;            // outputs beside those of `types`
  std::vector<std::string> tensor_types;  // "REGEX=TYPE"; the first that matches a tensor name wins
  std::optional<std::string> tensors;     // REGEX: only these tensors, in a file that says so
  uint64_t split_bytes = 0;               // most tensor bytes per file; 0: one file
  bool metadata_shard = false;            // when split, the first file holds no tensors
  bool folder_per_type = false;           // split outputs go into a folder of their own, named by the type
  uint64_t memory_bytes = 0;              // bound of the resident memory; 0: default_memory_budget()
  uint64_t beside_bytes = 0;              // what a model that runs beside the build may take, outside memory_bytes
  bool force = false;                     // existing files may be replaced
  bool mtp = false;                       // the model was opened with ModelOptions::mtp
  std::vector<std::string> skip;          // stored tensors that it was opened without (formats/model/skip.h)
  std::filesystem::path imatrix;          // where the importance was read from
  std::filesystem::path statistics;       // the folder that those for error feedback were read from
  std::optional<Effort> effort;           // of the encoders; empty: what the recipes say, else the default
  bool one_by_one = false;                // outputs are made in runs of their own
  uint64_t sync_bytes = 0;                // written between two records of the journal; 0: kSyncBytes
};

}  // namespace quern
