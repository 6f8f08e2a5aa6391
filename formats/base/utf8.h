#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace quern {

// Length of the well-formed UTF-8 sequence at text[i], or 0.
size_t utf8_sequence_length(std::string_view text, size_t i);

// Where the first byte is that belongs to no well-formed sequence.
std::optional<size_t> find_invalid_utf8(std::string_view text);

// Whether it begins with the byte order mark of UTF-16, in which editors of Windows save.
bool is_utf16(std::string_view text);

inline constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

}  // namespace quern
