#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf/metadata.h"

namespace quern::gguf {

// The names of all files of a split model, given the first and its metadata; the one name of a file that is not split. Throws kUsage for
// another shard than the first, which is then named, and kFormat when numbers or name do not tell where the others are.
std::vector<std::string> shard_names(const std::filesystem::path& first, const Metadata& metadata);

}  // namespace quern::gguf
