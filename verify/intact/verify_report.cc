#include "verify/intact/verify_report.h"

#include <algorithm>

namespace quern {

size_t VerifyReport::count(Verdict kind) const { return static_cast<size_t>(std::ranges::count(findings, kind, &Finding::verdict)); }

std::optional<bool> VerifyReport::intact() const {
  if (count(Verdict::kDamage) > 0) return false;
  return count(Verdict::kUnprovable) > 0 ? std::nullopt : std::optional(true);
}

}  // namespace quern
