#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/base/error.h"

namespace quern {

// 'NAME', as problems name tensors.
inline std::string in_quotes(std::string_view name) { return "'" + std::string(name) + "'"; }

// One thing that is wrong, where all of them are reported before anything is done.
struct Problem {
  ErrorKind kind;
  std::string message;
};

// What is wrong with a model, collected so that one run reports everything. A model repeats its layers, and so do its faults: texts
// that differ only in digits count as one kind, of which the first is shown.
class Problems {
 public:
  void add(ErrorKind kind, std::string text);
  // Something that is there and belongs to nothing, where add() tells what is missing or unfit. What explains the one is often the other,
  // so that both are shown in turn.
  void add_unclaimed(ErrorKind kind, std::string text);
  bool empty() const noexcept { return wanted_.empty() && unclaimed_.empty(); }

  // Throws one Error with them, kUnsupported if any of them is; returns when there are none. It names a few kinds and counts the others.
  void throw_if_any() const;

 private:
  struct Group {
    std::string pattern;  // the text with every run of digits replaced by '#'
    std::string first;
    int64_t count = 0;
  };

  static void add_to(std::vector<Group>& groups, std::string text);

  std::vector<Group> wanted_;
  std::vector<Group> unclaimed_;
  ErrorKind kind_ = ErrorKind::kFormat;
};

}  // namespace quern
