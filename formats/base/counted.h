#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quern {

// "1 file", "3 files".
inline std::string counted(uint64_t n, std::string_view what) { return std::to_string(n) + " " + std::string(what) + (n == 1 ? "" : "s"); }

}  // namespace quern
