#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "formats/model/model_source.h"

namespace quern {

// What people are told about a model as it is stored.

// Bytes of all its files.
uint64_t size_on_disk(const ModelSource& source);

// Stored bits of its tensors, scales included, divided by its weights.
double bits_per_weight(const ModelSource& source);

// Name of a file or folder without those above it; of "." and ".." the name of the folder that they stand for.
std::string shown_name(const std::filesystem::path& path);

}  // namespace quern
