#include "formats/base/problems.h"

#include <algorithm>

namespace quern {
namespace {

// Enough to see what a damaged or foreign checkpoint is, in no more than ten lines of a terminal.
constexpr size_t kMaxShown = 6;

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
  add_to(wanted_, std::move(text));
}

void Problems::add_unclaimed(ErrorKind kind, std::string text) {
  if (kind == ErrorKind::kUnsupported) kind_ = kind;
  add_to(unclaimed_, std::move(text));
}

void Problems::add_to(std::vector<Group>& groups, std::string text) {
  std::string pattern = without_digits(text);
  const auto group = std::ranges::find(groups, pattern, &Group::pattern);
  if (group != groups.end()) {
    ++group->count;
  } else {
    groups.push_back({std::move(pattern), std::move(text), 1});
  }
}

void Problems::throw_if_any() const {
  if (empty()) return;
  std::vector<const Group*> order;
  for (size_t i = 0; i < std::max(wanted_.size(), unclaimed_.size()); ++i) {
    if (i < wanted_.size()) order.push_back(&wanted_[i]);
    if (i < unclaimed_.size()) order.push_back(&unclaimed_[i]);
  }
  std::string message;
  for (size_t i = 0; i < std::min(order.size(), kMaxShown); ++i) {
    if (i > 0) message += "; ";
    message += order[i]->first;
    if (order[i]->count > 1) message += " (and " + std::to_string(order[i]->count - 1) + " more like it)";
  }
  if (order.size() > kMaxShown) message += "; and " + std::to_string(order.size() - kMaxShown) + " more kinds of problems";
  throw Error(kind_, message);
}

}  // namespace quern
