#pragma once

#include <string>

namespace quern {

// One thing that is suspicious in a model.

enum class Severity {
  kBroken,   // programs will refuse it or compute nonsense
  kWarning,  // may work, may not be what was meant, may be dangerous
  kNote
};

struct Symptom {
  Severity severity = Severity::kWarning;
  std::string where;    // file and tensor or key, may be empty
  std::string message;  // what is wrong, and what it means where that is not obvious
};

}  // namespace quern
