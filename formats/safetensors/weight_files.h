#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/base/model_folder.h"
#include "formats/safetensors/safetensors_index.h"

namespace quern::safetensors {

// The files of a folder that are its model, of all the weights that may lie there.
struct WeightFiles {
  std::vector<std::string> names;   // sorted
  std::optional<Index> index;       // the one that lists them; empty without one, and where it is stale
  bool complete_by_number = false;  // they are 1 to N of N, whatever an index says
  std::vector<std::string> notes;   // what was left aside or not believed, one line each
};

// Takes what transformers loads: model.safetensors, or else the shards of model.safetensors.index.json. Where that index is missing, or
// names files that are not there, shards that are complete by their numbers are taken. Throws kFormat for two sets of weights that could
// both be meant, for an incomplete set, and where there is none, naming what is there instead.
WeightFiles find_weights(const ModelFolder& folder);

}  // namespace quern::safetensors
