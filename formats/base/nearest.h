#pragma once

#include <span>
#include <string>
#include <string_view>

namespace quern {

// The candidate closest to `name` by edit distance (case ignored), or empty when none is close enough to be what was meant:
// more than a third of the longer of the two differs. Ties go to the earlier candidate.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> candidates);

// "; did you mean 'X'?" or nothing, to end a message with.
std::string did_you_mean(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace quern
