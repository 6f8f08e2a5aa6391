#include <nlohmann/json.hpp>

#include "verify/intact/verify_report.h"

namespace quern {

using nlohmann::ordered_json;

const char* name_of(CheckState state) { return state == CheckState::kOk ? "ok" : state == CheckState::kFailed ? "failed" : "skipped"; }
const char* name_of(Verdict verdict) {
  return verdict == Verdict::kDamage ? "damage" : verdict == Verdict::kUnprovable ? "unproved" : "note";
}

std::string verify_to_json(const VerifyReport& report, uint64_t seed) {
  ordered_json checks = ordered_json::array(), findings = ordered_json::array();
  for (const Check& check : report.checks)
    checks.push_back({{"name", check.name}, {"state", name_of(check.state)}, {"detail", check.detail}});
  for (const Finding& finding : report.findings) {
    ordered_json entry = {{"verdict", name_of(finding.verdict)}, {"check", finding.check}, {"kind", finding.kind}};
    if (!finding.file.empty()) entry["file"] = finding.file;
    if (finding.offset) entry["offset"] = *finding.offset;
    if (!finding.tensor.empty()) entry["tensor"] = finding.tensor;
    if (finding.slice >= 0) entry["expert"] = finding.slice;
    entry["message"] = finding.message;
    findings.push_back(std::move(entry));
  }
  const std::optional<bool> intact = report.intact();
  const ordered_json root = {{"schema", "quern.verify/1"},
                             {"verdict", report.verdict},
                             {"intact", intact ? ordered_json(*intact) : ordered_json()},
                             {"checks", checks},
                             {"findings", findings},
                             {"seed", seed},
                             {"bytes_read", report.bytes_read}};
  return root.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace quern
