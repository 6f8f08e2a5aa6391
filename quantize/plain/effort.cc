#include "quantize/plain/effort.h"

#include <algorithm>
#include <array>

namespace quern {
namespace {

constexpr std::array<std::string_view, 3> kEffortNames = {"fast", "default", "best"};

}  // namespace

std::string_view name_of(Effort effort) noexcept { return kEffortNames[static_cast<size_t>(effort)]; }

std::optional<Effort> find_effort(std::string_view name) noexcept {
  const auto found = std::find(kEffortNames.begin(), kEffortNames.end(), name);
  if (found == kEffortNames.end()) return std::nullopt;
  return static_cast<Effort>(found - kEffortNames.begin());
}

}  // namespace quern
