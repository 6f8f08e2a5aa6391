#pragma once

#include <string>
#include <vector>

#include "formats/base/model_folder.h"

namespace quern::gguf {

// The GGUF models in a folder and in the folders in it, as a published folder has them: paths relative to it, sorted, of a split model the
// first file. Importance matrices and projectors are files of another kind and left out, by their names.
std::vector<std::string> models_in(const ModelFolder& folder);

// Throws kUsage for a folder that stands where one model should, and has no checkpoint: names the models in it, or says that it has none.
[[noreturn]] void refuse_folder(const ModelFolder& folder);

}  // namespace quern::gguf
