#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// The front matter of a hub README: the block between two lines `---` at its start, in the part of YAML that model cards use:
// top-level scalars (plain or quoted), lists of scalars (dashes or [a, b]) and comments. Deeper structures, block scalars, anchors
// and tags are skipped. A scalar is a list of one. README text is a suggestion: nothing in it is an error.
class ModelCard {
 public:
  // Reads at most the first 64 KiB, 256 items per list and 1 KiB per item; items with control characters are left out.
  static ModelCard parse(std::string_view readme);

  // First item, or empty.
  std::string text(std::string_view key) const;
  std::vector<std::string> list(std::string_view key) const;

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> fields_;
};

}  // namespace quern
