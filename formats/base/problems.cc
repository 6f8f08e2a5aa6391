#include "formats/base/problems.h"

#include <algorithm>

namespace quern {
namespace {

// Enough for every kind of fault a damaged or foreign checkpoint shows, and still a line one can read.
constexpr size_t kMaxShown = 12;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string without_digits(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (!is_digit(c)) {
      pattern += c;
    } else if (pattern.empty() || pattern.back() != '#') {
      pattern += '#';
    }
  }
  return pattern;
}

}  // namespace

void Problems::add(ErrorKind kind, std::string text) {
  if (kind == ErrorKind::kUnsupported) kind_ = kind;
  std::string pattern = without_digits(text);
  const auto group = std::ranges::find(groups_, pattern, &Group::pattern);
  if (group != groups_.end()) {
    ++group->count;
  } else {
    groups_.push_back({std::move(pattern), std::move(text), 1});
  }
}

void Problems::throw_if_any() const {
  if (groups_.empty()) return;
  std::string message;
  for (size_t i = 0; i < std::min(groups_.size(), kMaxShown); ++i) {
    if (i > 0) message += "; ";
    message += groups_[i].first;
    if (groups_[i].count > 1) message += " (and " + std::to_string(groups_[i].count - 1) + " more like it)";
  }
  if (groups_.size() > kMaxShown) message += "; and " + std::to_string(groups_.size() - kMaxShown) + " more kinds of problems";
  throw Error(kind_, message);
}

}  // namespace quern
