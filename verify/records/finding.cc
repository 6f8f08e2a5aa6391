#include "verify/records/finding.h"

#include <utility>

#include "formats/base/error.h"

namespace quern {

Finding damage(std::string check, std::string kind, std::string file, std::string message) {
  Finding finding;
  finding.check = std::move(check);
  finding.kind = std::move(kind);
  finding.file = std::move(file);
  finding.message = std::move(message);
  return finding;
}

std::string to_string(const Finding& finding) {
  std::string text;
  const auto add = [&text](const std::string& part) { text += (text.empty() ? "" : ": ") + part; };
  if (!finding.file.empty()) add(printable(finding.file));
  if (finding.offset) add("offset " + std::to_string(*finding.offset));
  if (!finding.tensor.empty())
    add("tensor '" + printable(finding.tensor) + "'" + (finding.slice >= 0 ? ", expert " + std::to_string(finding.slice) : ""));
  add(finding.message);
  return text;
}

}  // namespace quern
