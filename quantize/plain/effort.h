#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace quern {

// How much work a search may do. The default is what the published figures are made with; fast gives up some candidates and rounds,
// best tries several times as many. docs/encoders.md has the figures of each.
enum class Effort : uint8_t { kFast, kDefault, kBest };

// "fast", "default", "best".
std::string_view name_of(Effort effort) noexcept;
std::optional<Effort> find_effort(std::string_view name) noexcept;

}  // namespace quern
