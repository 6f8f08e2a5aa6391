#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "verify/records/finding.h"

namespace quern {

// What a verification found.

enum class CheckState { kOk, kFailed, kSkipped };

struct Check {
  std::string name;  // "manifest", "contents", "structure", "weights", "sums", "signature", "signed", "source"
  CheckState state = CheckState::kSkipped;
  std::string detail;  // what was looked at, or why it was not
};

struct VerifyReport {
  std::vector<Check> checks;
  std::vector<Finding> findings;
  std::string verdict;  // for people, one line: "intact: 2 builds of org/Model at 1234, signed by key deb2ded39dc26fce"
  uint64_t bytes_read = 0;

  size_t count(Verdict kind) const;
  std::optional<bool> intact() const;  // false: there is damage; empty: there is none, and something is not proved
};

// Words for people and for JSON: "ok", "failed", "skipped"; "damage", "unproved", "note".
const char* name_of(CheckState state);
const char* name_of(Verdict verdict);
// "quern.verify/1", with a newline. seed: of the sample.
std::string verify_to_json(const VerifyReport& report, uint64_t seed);

}  // namespace quern
