#pragma once

#include <filesystem>
#include <memory>

#include "formats/model/model_source.h"

namespace quern {

// A model as far as it can be known without weights: names, shapes, roles, stored types and metadata, for planning. What open_model
// opens is an outline too; beyond it, config.json alone is enough, with or without the index of the shards.
struct ModelOutline {
  std::unique_ptr<ModelSource> source;
  bool has_headers = false;    // false: stored types are those that config.json states, and the source has no weights to read
  bool has_tokenizer = false;  // false: the metadata lacks the tokenizer.* keys
};

// A checkpoint folder (complete, or config.json without shards), a config.json by itself under any name, or a GGUF file.
// skip: as open_model() of formats/model/skip.h takes it; not looked at where there are no headers.
ModelOutline open_outline(const std::filesystem::path& path, const ModelOptions& options = {}, std::span<const std::string> skip = {});

}  // namespace quern
