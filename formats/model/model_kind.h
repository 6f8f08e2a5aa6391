#pragma once

#include <string>

#include "formats/model/model_source.h"

namespace quern {

// What a file is that is GGUF but no model: an adapter, a projector, an importance matrix, a control vector, a vocabulary; with what it is
// for. Empty for a model.
std::string why_no_model(const ModelSource& source);

// Throws kUsage, naming the file, for what is no model.
void require_model(const ModelSource& source);

}  // namespace quern
