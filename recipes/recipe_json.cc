#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "formats/base/error.h"
#include "formats/base/json_events.h"
#include "formats/base/name_pattern.h"
#include "formats/base/nearest.h"
#include "formats/base/sha256.h"
#include "recipes/recipe.h"

// Recipes as JSON; docs/formats/recipe.md describes every field, recipes/recipe.schema.json.in is the same for programs.

namespace quern {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kSchema = "quern.recipe/1";
constexpr size_t kMaxTextBytes = size_t{1} << 20;
constexpr size_t kMaxRules = 4096;
constexpr size_t kMaxListItems = 1024;
constexpr size_t kMaxPatternBytes = 512;
constexpr size_t kMaxNameBytes = 64;
constexpr int kMaxDepth = 8;
constexpr std::string_view kEfforts[] = {"fast", "default", "best"};

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFormat, message); }

// Finds what a tree of the JSON library would hide: too deep nesting and keys that occur twice.
class StrictCheck : public JsonHandler {
 public:
  void begin_object() override { keys_.emplace_back(); }
  void end_object() override { keys_.pop_back(); }
  void begin_array() override {}
  void key(std::string& name) override {
    if (!keys_.back().insert(name).second) fail("key '" + printable(name) + "' occurs twice");
  }
  void string(std::string&) override {}
  void natural(uint64_t) override {}
  void other(const char*) override {}

 private:
  std::vector<std::set<std::string>> keys_;
};

ordered_json parse_strictly(std::string_view text) {
  if (text.size() > kMaxTextBytes) fail("a recipe of " + std::to_string(text.size()) + " bytes is larger than 1 MiB");
  StrictCheck check;
  parse_json(std::as_bytes(std::span(text)), kMaxDepth, check);
  return ordered_json::parse(text);
}

void check_keys(const ordered_json& object, std::span<const std::string_view> known, const std::string& what) {
  if (!object.is_object()) fail(what + " is not an object");
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      fail("unknown key '" + printable(key) + "' in " + what + did_you_mean(key, known));
    }
  }
}

std::string text_of(const ordered_json& object, const char* key, size_t max_bytes) {
  const auto found = object.find(key);
  if (found == object.end()) return "";
  if (!found->is_string()) fail(std::string("'") + key + "' is not a string");
  std::string text = found->get<std::string>();
  if (text.size() > max_bytes) {
    fail(std::string("'") + key + "' has " + std::to_string(text.size()) + " bytes, at most " + std::to_string(max_bytes) + " are allowed");
  }
  return text;
}

// One string or a list of them.
std::vector<std::string> texts_of(const ordered_json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return {};
  const ordered_json list = found->is_array() ? *found : ordered_json::array({*found});
  if (list.empty() || list.size() > kMaxListItems) fail(std::string("'") + key + "' must have 1 to 1024 entries");
  std::vector<std::string> texts;
  for (const ordered_json& item : list) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty()) fail(std::string("'") + key + "' has an entry that is not a word");
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

int64_t layer_number(const ordered_json& value) {
  constexpr int64_t kMost = 100000;
  const bool fits = value.is_number_integer() && value >= -kMost && value <= kMost;
  if (!fits) fail("'layers' has " + value.dump() + ", expected a layer number");
  return value.get<int64_t>();
}

// "12.5%" -> 125
std::optional<int64_t> thousandths(std::string_view text) {
  if (!text.ends_with('%') || text.size() < 2) return std::nullopt;
  text.remove_suffix(1);
  int64_t value = 0;
  size_t at = 0;
  while (at < text.size() && at < 3 && text[at] >= '0' && text[at] <= '9') value = 10 * value + (text[at++] - '0');
  if (at == 0) return std::nullopt;
  value *= 10;
  if (at < text.size()) {
    if (text.size() != at + 2 || text[at] != '.' || text[at + 1] < '0' || text[at + 1] > '9') return std::nullopt;
    value += text[at + 1] - '0';
  }
  return value <= 1000 ? std::optional(value) : std::nullopt;
}

std::string percent(int64_t value) {
  const std::string tenths = value % 10 == 0 ? "" : "." + std::to_string(value % 10);
  return std::to_string(value / 10) + tenths + "%";
}

// 3, [3, 7], or "75%-100%".
LayerRange range_from_json(const ordered_json& value) {
  if (value.is_string()) {
    const std::string text = value.get<std::string>();
    const size_t dash = text.find('-');
    const auto first = thousandths(std::string_view(text).substr(0, dash));
    const auto last = dash == std::string::npos ? std::nullopt : thousandths(std::string_view(text).substr(dash + 1));
    if (!first || !last || *first >= *last) fail("'layers' has '" + printable(text) + "', expected parts of the depth such as '75%-100%'");
    return {*first, *last, true};
  }
  if (!value.is_array()) return {layer_number(value), layer_number(value)};
  if (value.size() != 2) fail("'layers' has a range of " + std::to_string(value.size()) + " numbers, expected 2");
  const LayerRange range{layer_number(value[0]), layer_number(value[1])};
  const bool same_end = (range.first < 0) == (range.last < 0);
  if (same_end && range.first > range.last) fail("'layers' has the empty range " + value.dump());
  return range;
}

std::vector<LayerRange> ranges_of(const ordered_json& rule) {
  const auto found = rule.find("layers");
  if (found == rule.end()) return {};
  if (!found->is_array() || found->empty() || found->size() > kMaxListItems) fail("'layers' must be a list of 1 to 1024 entries");
  std::vector<LayerRange> ranges;
  for (const ordered_json& item : *found) ranges.push_back(range_from_json(item));
  return ranges;
}

ordered_json to_json(const LayerRange& range) {
  if (range.fraction) return percent(range.first) + "-" + percent(range.last);
  if (range.first == range.last) return range.first;
  return {range.first, range.last};
}

std::vector<Role> roles_of(const ordered_json& rule) {
  std::vector<std::string_view> known;
  for (int i = 0; i <= static_cast<int>(Role::kOther); ++i) known.push_back(role_name(static_cast<Role>(i)));
  std::vector<Role> roles;
  for (const std::string& name : texts_of(rule, "role")) {
    const std::optional<Role> role = find_role(name);
    if (!role) fail("unknown role '" + printable(name) + "'" + did_you_mean(name, known));
    roles.push_back(*role);
  }
  return roles;
}

std::vector<DType> types_of(const ordered_json& rule, const char* key) {
  std::vector<DType> types;
  for (const std::string& name : texts_of(rule, key)) {
    const RecipeType type = recipe_type_from_string(name);
    if (type.kind != RecipeType::Kind::kType) fail(std::string("'") + key + "' has '" + printable(name) + "', which is not a type");
    types.push_back(type.type);
  }
  return types;
}

ModelKind model_of(const ordered_json& rule) {
  const std::string model = text_of(rule, "model", kMaxNameBytes);
  if (model.empty()) return ModelKind::kAny;
  if (model == "dense") return ModelKind::kDense;
  if (model == "moe") return ModelKind::kMoe;
  fail("'model' is '" + printable(model) + "', expected 'dense' or 'moe'");
}

bool needs_importance(const ordered_json& rule) {
  const std::string need = text_of(rule, "importance", kMaxNameBytes);
  if (!need.empty() && need != "required") fail("'importance' is '" + printable(need) + "', expected 'required'");
  return !need.empty();
}

RecipeRule rule_from_json(const ordered_json& value) {
  static constexpr std::string_view kKeys[] = {"name", "layers",   "role",       "part",          "source", "model",
                                               "type", "fallback", "importance", "override_keep", "note"};
  check_keys(value, kKeys, "the rule");
  RecipeRule rule;
  rule.name = text_of(value, "name", kMaxPatternBytes);
  if (!rule.name.empty()) NamePattern{rule.name};
  rule.layers = ranges_of(value);
  rule.roles = roles_of(value);
  rule.parts = texts_of(value, "part");
  rule.sources = types_of(value, "source");
  rule.model = model_of(value);
  if (!value.contains("type")) fail("'type' is missing");
  rule.type = recipe_type_from_string(text_of(value, "type", kMaxNameBytes));
  rule.fallbacks = types_of(value, "fallback");
  rule.needs_importance = needs_importance(value);
  if (const auto keep = value.find("override_keep"); keep != value.end()) {
    if (!keep->is_boolean()) fail("'override_keep' is not true or false");
    rule.override_keep = keep->get<bool>();
  }
  rule.note = text_of(value, "note", kMaxTextBytes);
  return rule;
}

// Single entries stand without brackets.
void put(ordered_json& object, const char* key, const std::vector<std::string>& texts) {
  if (texts.size() == 1) object[key] = texts.front();
  if (texts.size() > 1) object[key] = texts;
}

void put(ordered_json& object, const char* key, const std::vector<DType>& types) {
  std::vector<std::string> names;
  for (const DType type : types) names.emplace_back(name_of(type));
  put(object, key, names);
}

ordered_json to_json(const RecipeRule& rule) {
  ordered_json value = ordered_json::object();
  if (!rule.name.empty()) value["name"] = rule.name;
  for (const LayerRange& range : rule.layers) value["layers"].push_back(to_json(range));
  std::vector<std::string> roles;
  for (const Role role : rule.roles) roles.emplace_back(role_name(role));
  put(value, "role", roles);
  put(value, "part", rule.parts);
  put(value, "source", rule.sources);
  if (rule.model != ModelKind::kAny) value["model"] = rule.model == ModelKind::kMoe ? "moe" : "dense";
  value["type"] = to_string(rule.type);
  put(value, "fallback", rule.fallbacks);
  if (rule.needs_importance) value["importance"] = "required";
  if (rule.override_keep) value["override_keep"] = true;
  if (!rule.note.empty()) value["note"] = rule.note;
  return value;
}

bool is_file_word(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= kMaxNameBytes && name.front() != '.' && std::all_of(name.begin(), name.end(), plain);
}

ordered_json head_to_json(const Recipe& recipe) {
  ordered_json root = {{"schema", kSchema}, {"name", recipe.name}};
  if (!recipe.notes.empty()) root["notes"] = recipe.notes;
  if (!recipe.effort.empty()) root["effort"] = recipe.effort;
  return root;
}

Recipe parse(const ordered_json& root) {
  static constexpr std::string_view kKeys[] = {"$schema", "schema", "name", "notes", "effort", "rules"};
  check_keys(root, kKeys, "the recipe");
  if (const std::string schema = text_of(root, "schema", kMaxTextBytes); schema != kSchema) {
    fail("schema is '" + printable(schema) + "', expected '" + std::string(kSchema) + "'");
  }
  Recipe recipe;
  recipe.name = text_of(root, "name", kMaxTextBytes);
  if (!is_file_word(recipe.name)) {
    fail("name is '" + printable(recipe.name) + "', expected 1 to 64 letters, digits, '.', '_' and '-', which file names are made of");
  }
  recipe.notes = text_of(root, "notes", kMaxTextBytes);
  recipe.effort = text_of(root, "effort", kMaxNameBytes);
  if (!recipe.effort.empty() && std::find(std::begin(kEfforts), std::end(kEfforts), recipe.effort) == std::end(kEfforts)) {
    fail("effort is '" + printable(recipe.effort) + "', expected fast, default or best");
  }
  const auto rules = root.find("rules");
  if (rules == root.end() || !rules->is_array() || rules->empty()) fail("'rules' must be a list of at least one rule");
  if (rules->size() > kMaxRules) fail(std::to_string(rules->size()) + " rules are more than " + std::to_string(kMaxRules));
  for (size_t r = 0; r < rules->size(); ++r) {
    try {
      recipe.rules.push_back(rule_from_json((*rules)[r]));
    } catch (const Error& error) {
      fail("rule " + std::to_string(r + 1) + ": " + error.message());
    }
  }
  return recipe;
}

}  // namespace

Recipe recipe_from_json(std::string_view text) { return parse(parse_strictly(text)); }

std::string recipe_to_json(const Recipe& recipe) {
  std::string text = head_to_json(recipe).dump(1);
  text.erase(text.rfind('\n'));
  text += ",\n \"rules\": [\n";
  for (size_t r = 0; r < recipe.rules.size(); ++r) {
    text += "  " + to_json(recipe.rules[r]).dump() + (r + 1 < recipe.rules.size() ? ",\n" : "\n");
  }
  return text + " ]\n}\n";
}

std::string canonical_json(const Recipe& recipe) {
  ordered_json root = head_to_json(recipe);
  root["rules"] = ordered_json::array();
  for (const RecipeRule& rule : recipe.rules) root["rules"].push_back(to_json(rule));
  return root.dump();
}

std::string recipe_id(const Recipe& recipe) { return sha256_hex(canonical_json(recipe)); }

}  // namespace quern
