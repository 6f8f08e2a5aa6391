#pragma once

#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "formats/safetensors/safetensors.h"

namespace quern::checkpoint {

// Of a checkpoint that does not fit its rules: throws kFormat or kUnsupported for the one mistake that explains it, if there is one. Those
// are a number of config.json that the tensors contradict (the key, its value, what is stored, what to set), a missing output matrix,
// an adapter that is not merged, and the names of another kind of model.
void throw_cause(const safetensors::Checkpoint& checkpoint, const ArchRules& rules, const ModelConfig& config);

}  // namespace quern::checkpoint
