#include <algorithm>
#include <map>

#include "formats/base/error.h"
#include "recipes/recipe.h"

// A list of types becomes a short list of rules that gives the same types. Tensors of one role and part form a group; its most frequent
// type becomes its rule, and every other type an exception, with a list of layers, that stands before it. Groups that say the same are
// joined: parts of a role first, then whole roles, and the type of most weights becomes the last rule, without conditions. At the end
// the rules are applied, and a tensor that they get wrong gets a rule by its name; so the result is right whatever was joined.

namespace quern {
namespace {

struct Group {
  Role role;
  std::string part;
  bool kept = false;            // by the keep-list, in another type than it gives
  std::vector<size_t> tensors;  // by layer
};

bool decided_by_rules(const LogicalTensor& tensor, DType type) {
  const std::optional<DType> kept = kept_type(tensor, DType::Q8_0);
  return !kept || *kept != type;
}

std::vector<Group> find_groups(std::span<const LogicalTensor> tensors, std::span<const DType> types) {
  std::vector<Group> groups;
  for (size_t k = 0; k < tensors.size(); ++k) {
    if (!decided_by_rules(tensors[k], types[k])) continue;
    const std::string part(tensor_part(tensors[k].name));
    const bool kept = tensors[k].keep == Keep::kSource;
    const auto same = [&](const Group& g) { return g.role == tensors[k].role && g.part == part && g.kept == kept; };
    auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) group = groups.insert(groups.end(), Group{tensors[k].role, part, kept, {}});
    group->tensors.push_back(k);
  }
  for (Group& group : groups) {
    std::stable_sort(group.tensors.begin(), group.tensors.end(), [&](size_t a, size_t b) { return tensors[a].layer < tensors[b].layer; });
  }
  return groups;
}

DType most_frequent(const Group& group, std::span<const DType> types) {
  std::map<DType, size_t> counts;
  for (const size_t k : group.tensors) ++counts[types[k]];
  return std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
}

std::vector<LayerRange> ranges_of(const std::vector<int64_t>& layers) {
  std::vector<LayerRange> ranges;
  for (const int64_t layer : layers) {
    if (ranges.empty() || layer > ranges.back().last + 1) ranges.push_back({layer, layer});
    ranges.back().last = layer;
  }
  return ranges;
}

RecipeRule rule_of(const Group& group, DType type) {
  RecipeRule rule;
  rule.roles = {group.role};
  rule.parts = {group.part};
  rule.type.type = type;
  rule.override_keep = group.kept;
  return rule;
}

std::vector<RecipeRule> exceptions_of(const Group& group, DType usual, std::span<const LogicalTensor> tensors,
                                      std::span<const DType> types) {
  std::map<DType, std::vector<int64_t>> layers;
  for (const size_t k : group.tensors) {
    if (types[k] != usual && tensors[k].layer >= 0) layers[types[k]].push_back(tensors[k].layer);
  }
  std::vector<RecipeRule> rules;
  for (const auto& [type, of_type] : layers) {
    RecipeRule rule = rule_of(group, type);
    rule.layers = ranges_of(of_type);
    rules.push_back(rule);
  }
  return rules;
}

// Rules that differ only in the part become one rule with both parts.
void join_parts(std::vector<RecipeRule>& rules) {
  std::vector<RecipeRule> joined;
  for (const RecipeRule& rule : rules) {
    const auto same = [&](RecipeRule other) {
      other.parts = rule.parts;
      return other == rule;
    };
    const auto found = std::find_if(joined.begin(), joined.end(), same);
    if (found == joined.end()) {
      joined.push_back(rule);
    } else {
      found->parts.insert(found->parts.end(), rule.parts.begin(), rule.parts.end());
    }
  }
  rules = std::move(joined);
}

// A role with one rule needs no parts, and roles of one type stand in one rule. Kept tensors stay apart: they share roles with others.
void join_roles(std::vector<RecipeRule>& rules) {
  std::vector<RecipeRule> joined;
  for (RecipeRule rule : rules) {
    const auto has_role = [&](const RecipeRule& other) { return other.roles == rule.roles; };
    if (std::count_if(rules.begin(), rules.end(), has_role) == 1 && !rule.override_keep) rule.parts.clear();
    const auto same = [&](const RecipeRule& other) {
      return other.parts.empty() && rule.parts.empty() && other.type == rule.type && other.override_keep == rule.override_keep;
    };
    const auto found = std::find_if(joined.begin(), joined.end(), same);
    if (found == joined.end()) {
      joined.push_back(rule);
    } else {
      found->roles.insert(found->roles.end(), rule.roles.begin(), rule.roles.end());
    }
  }
  rules = std::move(joined);
}

DType type_of_most_weights(std::span<const LogicalTensor> tensors, std::span<const DType> types) {
  std::map<DType, int64_t> weights;
  for (size_t k = 0; k < tensors.size(); ++k) {
    if (!kept_type(tensors[k], DType::Q8_0)) weights[types[k]] += tensors[k].shape.n_elements();
  }
  if (weights.empty()) return DType::F16;
  return std::max_element(weights.begin(), weights.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
}

std::string exact_pattern(std::string_view name) {
  std::string pattern = "^";
  for (const char c : name) {
    if (c == '.') pattern += '\\';
    pattern += c;
  }
  return pattern + "$";
}

// Rules by name for the tensors that the others get wrong.
void put_right_by_name(Recipe& recipe, const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types) {
  const std::vector<TypeChoice> choices = choose_types(recipe, metadata, tensors, true);
  std::vector<RecipeRule> by_name;
  for (size_t k = 0; k < tensors.size(); ++k) {
    if (choices[k].type == types[k]) continue;
    RecipeRule rule;
    rule.name = exact_pattern(tensors[k].name);
    rule.type.type = types[k];
    rule.override_keep = tensors[k].keep == Keep::kSource;
    by_name.push_back(rule);
  }
  recipe.rules.insert(recipe.rules.begin(), by_name.begin(), by_name.end());
}

}  // namespace

Recipe recipe_of_types(std::string name, const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types) {
  QUERN_CHECK(tensors.size() == types.size());
  std::vector<RecipeRule> exceptions, usual;
  for (const Group& group : find_groups(tensors, types)) {
    const DType type = most_frequent(group, types);
    const std::vector<RecipeRule> of_group = exceptions_of(group, type, tensors, types);
    exceptions.insert(exceptions.end(), of_group.begin(), of_group.end());
    usual.push_back(rule_of(group, type));
  }
  join_parts(exceptions);
  join_parts(usual);
  join_roles(usual);
  RecipeRule last;
  last.type.type = type_of_most_weights(tensors, types);
  std::erase_if(usual, [&](const RecipeRule& rule) { return rule.type == last.type && !rule.override_keep; });

  Recipe recipe;
  recipe.name = std::move(name);
  recipe.rules = std::move(exceptions);
  recipe.rules.insert(recipe.rules.end(), usual.begin(), usual.end());
  recipe.rules.push_back(last);
  put_right_by_name(recipe, metadata, tensors, types);
  return recipe;
}

}  // namespace quern
