#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace quern {

// ASCII letters become small ones, everything else stays.
constexpr char ascii_lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Whether two names are the same but for the case of ASCII letters.
constexpr bool same_name(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (ascii_lower(a[i]) != ascii_lower(b[i])) return false;
  }
  return true;
}

// The candidate closest to `name` by edit distance (case ignored), or empty when none is close enough to be what was meant:
// more than a third of the longer of the two differs. Ties go to the earlier candidate.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> candidates);

// "; did you mean 'X'?" or nothing, to end a message with.
std::string did_you_mean(std::string_view name, std::span<const std::string_view> candidates);

// "; did you mean 'X'? Known: A, B, C and 9 more (quern types lists them)", for names that no help text lists; the first few are shown.
std::string known_names(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace quern
