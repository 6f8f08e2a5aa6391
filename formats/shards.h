#pragma once

#include <filesystem>
#include <span>
#include <string>

namespace quern {

// Throws one kFormat error that counts and names the files of `names` that `folder` lacks.
void require_files(const std::filesystem::path& folder, std::span<const std::string> names);

}  // namespace quern
