#include "formats/base/nearest.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

namespace quern {
namespace {

// Levenshtein distance with one row of the table.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (ascii_lower(a[i]) == ascii_lower(b[j]) ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({substituted, row[j] + 1, row[j + 1] + 1}));
    }
  }
  return row.back();
}

}  // namespace

std::string_view nearest_name(std::string_view name, std::span<const std::string_view> candidates) {
  constexpr size_t kLongestName = 256;  // names typed by people; bounds the quadratic cost
  if (name.size() > kLongestName) return {};
  std::string_view best;
  size_t best_distance = name.size() + 1;
  for (const std::string_view candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance && 3 * distance <= std::max(name.size(), candidate.size())) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view name, std::span<const std::string_view> candidates) {
  const std::string_view best = nearest_name(name, candidates);
  return best.empty() ? std::string() : "; did you mean '" + std::string(best) + "'?";
}

std::string known_names(std::string_view name, std::span<const std::string_view> candidates) {
  constexpr size_t kShown = 12;
  const std::string near = did_you_mean(name, candidates);
  std::string text = near.empty() ? "; known: " : near + " Known: ";
  for (size_t i = 0; i < std::min(kShown, candidates.size()); ++i) text += (i == 0 ? "" : ", ") + std::string(candidates[i]);
  if (candidates.size() > kShown) text += " and " + std::to_string(candidates.size() - kShown) + " more ('quern types' lists them)";
  return text;
}

}  // namespace quern
