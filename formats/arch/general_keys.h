#pragma once

#include <string>
#include <vector>

#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "formats/base/model_folder.h"
#include "formats/gguf/metadata.h"
#include "formats/model/model_source.h"

namespace quern {

// Sets the general.* keys that hub pages and file names are made of, in a fixed order, general.architecture first.
// Name, organization, base name, size, finetune and version come from ModelOptions::name, else the README's front matter, else the
// folder's name (in a hub cache: the repository's). License and base models: options, else README. Tags, languages, author and
// description: README. Sampling parameters: generation_config.json, unless it asks for greedy decoding. Of the path only the last
// component is used, so that nothing of the machine enters a file. general.file_type is the writer's to add.
// `notes` gets a line for everything that was left out because it could not be used.
// Names of keys: llama.cpp gguf-py/gguf/constants.py (Keys.General).
void set_general_keys(const ModelFolder& folder, const ModelConfig& config, const ArchDescriptor& arch, const ArchRules& rules,
                      const ModelOptions& options, Metadata& metadata, std::vector<std::string>& notes);

// "8.0B", or "8x12B" with experts: their number times what one token path through a single expert per layer weighs.
// Source: llama.cpp gguf-py/gguf/{gguf_writer,utility}.py (get_total_parameter_count, size_label).
std::string size_label(const ArchRules& rules);

}  // namespace quern
