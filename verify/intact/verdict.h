#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "verify/intact/record_search.h"
#include "verify/intact/verify_report.h"

namespace quern {

// What a verification found, in one line.

// Beside the findings.
struct VerdictFacts {
  const FoundRecords& found;
  std::string signer;  // that the attestation names; empty without one
  bool has_key = false;
  std::vector<std::string> not_as_signed;  // files
  size_t n_proved = 0;                     // files that are what a list of sums says
  std::string source;                      // "derived again from MODEL"; empty: nothing was
};

// "intact: 2 builds of org/Model at 1234, signed by key deb2ded39dc26fce", or "damaged: ..." or "not proved: ...", by the gravest finding.
// The states of the checks are final.
std::string verdict_of(const VerifyReport& report, const VerdictFacts& facts);

// "3 files", or "2 of 3 files" when not all of them are meant.
std::string share_of(size_t n, size_t n_all, std::string_view what);
// "a", "a and b", "a, b and 3 more"; at least one.
std::string first_few(const std::vector<std::string>& names);

}  // namespace quern
