#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace quern {

// Length of the well-formed UTF-8 sequence at text[i], or 0. Overlong forms, surrogates and what lies beyond U+10FFFF are not well-formed.
size_t utf8_sequence_length(std::string_view text, size_t i) noexcept;

// Where the first byte is that belongs to no well-formed sequence.
std::optional<size_t> find_invalid_utf8(std::string_view text) noexcept;
inline bool is_utf8(std::string_view text) noexcept { return !find_invalid_utf8(text); }

// Whether it begins with the byte order mark of UTF-16, in which editors of Windows save.
bool is_utf16(std::string_view text);

inline constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

}  // namespace quern
