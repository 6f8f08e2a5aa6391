#pragma once

#include <filesystem>
#include <vector>

#include "formats/model/model_source.h"

namespace quern {

// The files without tensors that are read when a checkpoint folder is opened and that decide what its metadata says: configuration,
// tokenizer, chat templates, model card, index; sorted by name. A GGUF file has none. Reads headers only. Throws what open_model throws.
std::vector<SourceFile> documents_of(const std::filesystem::path& model);

}  // namespace quern
