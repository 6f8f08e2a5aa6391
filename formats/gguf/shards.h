#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf/metadata.h"

namespace quern::gguf {

// The names of all files of a split model, given the first and its metadata; the one name of a file that is not split. Throws kUsage for
// another shard than the first, which is then named, and kFormat when numbers or name do not tell where the others are.
std::vector<std::string> shard_names(const std::filesystem::path& first, const Metadata& metadata);

// Of a shard of a split model the first one, when its name tells where that is and it is there; else the path as it is given.
std::filesystem::path first_shard(const std::filesystem::path& shard, const Metadata& metadata);

}  // namespace quern::gguf
