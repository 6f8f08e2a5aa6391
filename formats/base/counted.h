#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace quern {

// "1 file", "3 files".
inline std::string counted(uint64_t n, std::string_view what) { return std::to_string(n) + " " + std::string(what) + (n == 1 ? "" : "s"); }

// "a, b, c and 4 more": at most so many by name, printable and each between quotes.
std::string first_of(std::span<const std::string> names, size_t most, std::string_view quote = "");

}  // namespace quern
