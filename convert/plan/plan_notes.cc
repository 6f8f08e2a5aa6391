#include "convert/plan/plan_notes.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "convert/plan/plan_checks.h"
#include "formats/base/counted.h"
#include "formats/base/error.h"
#include "formats/base/name_pattern.h"

// A pattern is searched anywhere in a name, as in llama-quantize, so `output` also finds attn_output. Whether that was meant nobody can
// know; but a pattern that is plain text, and is a whole word of some names and a piece of a word in others, probably says too much.

namespace quern {
namespace {

const char* const kWidth = "width fallback";

// The text that a pattern without special characters stands for; an escaped dot is a dot, a bare one most likely too.
std::optional<std::string> plain_text(std::string pattern) {
  for (size_t at = pattern.find("\\."); at != std::string::npos; at = pattern.find("\\.", at)) pattern.erase(at, 1);
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
  if (pattern.find_first_not_of(kPlain) != std::string::npos) return std::nullopt;
  return pattern;
}

// Whether the text is in the name with a dot or an end of the name on either side.
bool has_word(std::string_view name, std::string_view word) {
  for (size_t at = name.find(word); at != std::string_view::npos; at = name.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool begins = at == 0 || name[at - 1] == '.' || word.front() == '.';
    const bool ends = end == name.size() || name[end] == '.' || word.back() == '.';
    if (begins && ends) return true;
  }
  return false;
}

void note_breadth(const std::string& pattern, const std::vector<std::string_view>& found, Plan& plan) {
  const std::optional<std::string> word = plain_text(pattern);
  if (!word) return;
  std::vector<std::string_view> others;
  for (const std::string_view name : found) {
    if (!has_word(name, *word)) others.push_back(name);
  }
  if (others.empty() || others.size() == found.size()) return;
  const size_t first = word->find_first_not_of('.'), last = word->find_last_not_of('.');
  if (first == std::string::npos) return;
  plan.notes.push_back("--tensor-type: '" + pattern + "' is searched anywhere in a name and also decides " +
                       counted(others.size(), "tensor") + " with longer words, such as '" + std::string(others.front()) + "'; '(^|\\.)" +
                       word->substr(first, last - first + 1) + "(\\.|$)' finds the whole word only");
}

std::string list_changes(const std::map<std::pair<DType, DType>, size_t>& changes) {
  std::string text;
  for (const auto& [types, count] : changes) {
    text += (text.empty() ? "" : ", ") + std::string(name_of(types.second)) + " instead of " + std::string(name_of(types.first)) + " (" +
            std::to_string(count) + ")";
  }
  return text;
}

// Tensors that have another type than the one chosen for them.
struct Fallbacks {
  std::map<std::pair<DType, DType>, size_t> changes;  // from and to
  size_t count = 0;
  int64_t n_weights = 0;
  const PlannedTensor* first = nullptr;

  void add(const PlannedTensor& tensor, const TypeChoice& choice) {
    ++changes[{choice.wanted, choice.type}];
    ++count;
    n_weights += tensor.shape.n_elements();
    if (first == nullptr) first = &tensor;
  }
  std::string example() const { return "'" + first->name + "' with rows of " + std::to_string(first->shape.row_length()); }
};

void note_fallbacks(const std::string& output, const Fallbacks& found, Plan& plan) {
  if (found.count == 0) return;
  char share[32];
  std::snprintf(share, sizeof share, "%.1f %%", 100.0 * static_cast<double>(found.n_weights) / static_cast<double>(plan.n_weights()));
  plan.notes.push_back(output + ": blocks do not divide the rows of " + counted(found.count, "tensor") + ", " + share +
                       " of the weights, " + "which get other types: " + list_changes(found.changes) + "; the first is " + found.example());
}

// Outputs share their overrides, so the second one has nothing new to say.
void warn_override(const std::string& text, const Fallbacks& found, Plan& plan) {
  const std::string warning = "--tensor-type: '" + printable(text) + "' cannot be had for " + counted(found.count, "tensor") +
                              ", whose rows its blocks do not divide: " + list_changes(found.changes) + "; the first is " + found.example();
  if (std::ranges::find(plan.warnings, warning) == plan.warnings.end()) plan.warnings.push_back(warning);
}

void note_idle_rules(const WantedOutput& wanted, const std::vector<TypeChoice>& choices, Plan& plan) {
  std::set<int64_t> deciding;
  for (const TypeChoice& choice : choices) deciding.insert(choice.rule);
  for (size_t r = wanted.n_overrides; r < wanted.recipe.rules.size(); ++r) {
    const std::string& name = wanted.recipe.rules[r].name;
    if (name.empty() || deciding.contains(static_cast<int64_t>(r))) continue;
    plan.notes.push_back("recipe " + wanted.recipe.name + ": rule " + std::to_string(r - wanted.n_overrides + 1) + " ('" + printable(name) +
                         "') decides no tensor of this model");
  }
}

}  // namespace

void note_overrides(const ModelSource& source, const PlanOptions& options, Plan& plan) {
  std::vector<Problem> already_reported;
  std::set<std::string_view> taken;
  for (const RecipeRule& override : parse_overrides(options.tensor_types, already_reported)) {
    const NamePattern pattern(override.name);
    std::vector<std::string_view> found;
    for (const LogicalTensor& tensor : source.tensors()) {
      if (pattern.found_in(tensor.name) && !kept_type(tensor, DType::Q8_0)) found.push_back(tensor.name);
    }
    const size_t n_taken = taken.size();
    taken.insert(found.begin(), found.end());
    if (taken.size() == n_taken && !found.empty())
      plan.warnings.push_back("--tensor-type: '" + printable(override.name) + "' decides nothing: earlier ones match all its tensors");
    note_breadth(override.name, found, plan);
  }
}

void note_choices(const WantedOutput& wanted, const PlanOptions& options, const std::vector<TypeChoice>& choices, Plan& plan) {
  Fallbacks chosen;
  std::map<int64_t, Fallbacks> asked;  // by override
  for (size_t t = 0; t < choices.size(); ++t) {
    if (choices[t].why != kWidth) continue;
    const bool override = choices[t].rule >= 0 && std::cmp_less(choices[t].rule, wanted.n_overrides);
    (override ? asked[choices[t].rule] : chosen).add(plan.tensors[t], choices[t]);
  }
  note_fallbacks(wanted.recipe.name, chosen, plan);
  std::vector<Problem> already_reported;
  const std::vector<RecipeRule> overrides = parse_overrides(options.tensor_types, already_reported);
  for (const auto& [rule, found] : asked) {
    const RecipeRule& override = overrides[static_cast<size_t>(rule)];
    warn_override(override.name + "=" + to_string(override.type), found, plan);
  }
  if (!options.tensors) note_idle_rules(wanted, choices, plan);
}

}  // namespace quern
