#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace quern {

// One thing that a check found in a build.

enum class Verdict {
  kDamage,      // something is not as it was published
  kUnprovable,  // cannot be decided here: "cannot be re-derived by this version"
  kNote
};

struct Finding {
  Verdict verdict = Verdict::kDamage;
  std::string check;  // the check that found it
  std::string kind;   // a word that programs can rely on: "flipped-bytes", "truncated" ... (docs/verify.md lists them)
  std::string file;   // relative to the folder
  std::optional<uint64_t> offset;
  std::string tensor;
  int64_t slice = -1;  // expert of a stacked tensor
  std::string message;
};
Finding damage(std::string check, std::string kind, std::string file, std::string message);
// "FILE: offset N: tensor 'NAME', expert 3: MESSAGE", without what is unknown.
std::string to_string(const Finding& finding);

}  // namespace quern
