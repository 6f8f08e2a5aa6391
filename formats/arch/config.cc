#include "formats/arch/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/base/json_tree.h"
#include "formats/base/problems.h"

// The JSON is flattened once into a map from dotted keys to values, and this file alone knows the JSON library: everything after asks typed
// questions. text_config is merged before that, member by member, so that a nested object of it takes the place of the outer one whole
// instead of mixing with it. nulls are dropped. Arrays of numbers become doubles, which are exact for the integers that configs hold
// (larger ones are refused); an array of anything else is known to be there and readable by nobody. An older name of a field is looked for
// only when the newest one is absent, so that files that carry both mean the newest.
//
// Contradictions are looked for once, in the finished map: older against newer names, and the pairs of a table whose first name counts.
// Nothing else reads the names that do not count, except where the first is absent.

namespace quern {

namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;
constexpr size_t kMaxBytes = size_t{8} << 20;
constexpr int64_t kMaxCount = 0x7fffffff;
constexpr double kMaxExactInteger = 9007199254740992.0;  // 2^53: above it a double no longer tells which integer was meant
constexpr std::string_view kGenerationPrefix = "generation_config.";

// Newest name first. Sources: transformers' attribute maps; llama.cpp conversion/base.py (find_hparam lists).
struct Aliases {
  std::string_view key;
  std::array<std::string_view, 5> older;
};
constexpr std::array kAliases = {
    Aliases{"num_hidden_layers", {"n_layers", "n_layer", "num_layers"}},
    Aliases{"max_position_embeddings", {"n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length"}},
    Aliases{"rms_norm_eps", {"norm_eps"}},
    Aliases{"num_experts", {"num_local_experts", "n_routed_experts"}},
    Aliases{"num_experts_per_tok", {"num_experts_per_token", "top_k_experts"}},
};

// Spellings that transformers reads in this order. PreTrainedConfig.convert_rope_params_to_dict takes a rope_scaling in the place of
// rope_parameters, what is inside of either before what is outside, and rope_type before type; dtype before torch_dtype.
struct Spellings {
  std::string_view counts;
  std::string_view other;
};
constexpr std::array kSpellings = {
    Spellings{"rope_scaling.rope_theta", "rope_theta"},
    Spellings{"rope_parameters.rope_theta", "rope_theta"},
    Spellings{"rope_scaling.rope_type", "rope_scaling.type"},
    Spellings{"rope_parameters.rope_type", "rope_parameters.type"},
    Spellings{"dtype", "torch_dtype"},
};

// A length for generation in most files, and an older name of the context in a few: that it differs says nothing.
constexpr std::string_view kAmbiguousName = "max_length";

std::string quoted(std::string_view key) {
  const bool generation = key.starts_with(kGenerationPrefix);
  if (generation) key.remove_prefix(kGenerationPrefix.size());
  return std::string(generation ? "generation_config.json" : "config.json") + ": '" + printable(key) + "'";
}

[[noreturn]] void fail(std::string_view key, const std::string& what) { throw Error(ErrorKind::kFormat, quoted(key) + " " + what); }

json parse_object(std::string_view text, std::string_view file, std::vector<std::string>& notes) {
  if (text.size() > kMaxBytes) {
    throw Error(ErrorKind::kFormat, std::to_string(text.size()) + " bytes, at most " + std::to_string(kMaxBytes) + " expected").file(file);
  }
  try {
    std::vector<std::string> repeated;
    json root = parse_python_json(text, kMaxDepth, repeated);
    if (!root.is_object()) throw Error(ErrorKind::kFormat, "a JSON object is expected");
    for (const std::string& key : repeated) {
      notes.push_back(std::string(file) + ": the key '" + printable(key, 40) + "' occurs twice; the last one counts");
    }
    return root;
  } catch (Error& error) {
    error.file(file);
    throw;
  }
}

constexpr std::array kNested = {"llm_config", "language_config", "text_config"};

// Field by field: a nested rope_scaling replaces the outer one as a whole.
json with_nested_configs(const json& root) {
  json merged = root;
  for (const char* nested : kNested) {
    if (const auto it = root.find(nested); it != root.end() && it->is_object()) merged.update(*it);
  }
  const auto quantization = merged.find("quantization_config"), compression = merged.find("compression_config");
  const bool only_compression = (quantization == merged.end() || quantization->is_null()) && compression != merged.end();
  if (only_compression) merged["quantization_config"] = json(*compression);
  return merged;
}

}  // namespace

class ConfigBuilder {
 public:
  explicit ConfigBuilder(ModelConfig& config) : fields_(config.fields_) {}

  // Depth is bounded by parse_object.
  void add(const std::string& prefix, const json& object) {
    for (const auto& [name, value] : object.items()) {
      const std::string key = prefix + name;
      if (value.is_object()) {
        add(key + ".", value);
      } else if (!value.is_null()) {
        fields_.insert_or_assign(key, to_value(value));
      }
    }
  }

 private:
  using Value = ModelConfig::Value;

  static Value to_value(const json& value) {
    switch (value.type()) {
      case json::value_t::boolean:
        return value.get<bool>();
      case json::value_t::number_integer:
        return value.get<int64_t>();
      case json::value_t::number_unsigned:
        if (value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return value.get<double>();
        return value.get<int64_t>();
      case json::value_t::number_float:
        return value.get<double>();
      case json::value_t::string:
        return value.get<std::string>();
      default:
        return to_array(value);
    }
  }

  static Value to_array(const json& value) {
    if (!value.is_array()) return ModelConfig::Opaque{};
    const auto all = [&](auto predicate) { return std::all_of(value.begin(), value.end(), predicate); };
    if (all([](const json& v) { return v.is_number(); })) return value.get<std::vector<double>>();
    if (all([](const json& v) { return v.is_string(); })) return value.get<std::vector<std::string>>();
    return ModelConfig::Opaque{};
  }

  std::map<std::string, Value, std::less<>>& fields_;
};

namespace {

std::optional<ModelConfig::Wrapper> find_wrapper(const json& root) {
  ModelConfig::Wrapper wrapper;
  for (const auto& [key, value] : root.items()) {
    if (!value.is_object() || !key.ends_with("_config") || key == "quantization_config") continue;
    if (std::ranges::find(kNested, key) != kNested.end()) {
      wrapper.nested = key;
    } else {
      wrapper.siblings.push_back(key);
    }
  }
  if (wrapper.nested.empty()) return std::nullopt;
  const auto text = [](const json& value) { return value.is_string() ? value.get<std::string>() : std::string(); };
  if (const auto it = root.find("model_type"); it != root.end()) wrapper.model_type = text(*it);
  if (const auto it = root.find("architectures"); it != root.end() && it->is_array() && !it->empty()) {
    wrapper.architecture = text(it->front());
  }
  return wrapper;
}

}  // namespace

ModelConfig ModelConfig::parse(std::string_view config_json, std::string_view generation_json) {
  ModelConfig config;
  ConfigBuilder builder(config);
  const json root = parse_object(config_json, "config.json", config.notes_);
  config.wrapper_ = find_wrapper(root);
  builder.add("", with_nested_configs(root));
  if (!generation_json.empty()) {
    builder.add(std::string(kGenerationPrefix), parse_object(generation_json, "generation_config.json", config.notes_));
  }
  config.note_contradictions();
  return config;
}

const ModelConfig::Value* ModelConfig::find_exactly(std::string_view key) const noexcept {
  const auto it = fields_.find(key);
  return it == fields_.end() ? nullptr : &it->second;
}

const ModelConfig::Value* ModelConfig::find(std::string_view key) const noexcept {
  if (const Value* value = find_exactly(key)) return value;
  for (const Aliases& aliases : kAliases) {
    if (aliases.key != key) continue;
    for (std::string_view older : aliases.older) {
      if (const Value* value = find_exactly(older)) return value;
    }
  }
  return nullptr;
}

std::string_view ModelConfig::spelling(std::string_view key) const noexcept {
  if (fields_.find(key) != fields_.end()) return key;
  for (const Aliases& aliases : kAliases) {
    if (aliases.key != key) continue;
    for (std::string_view older : aliases.older) {
      if (fields_.find(older) != fields_.end()) return older;
    }
  }
  return key;
}

bool ModelConfig::has(std::string_view key) const noexcept { return find(key) != nullptr; }

bool ModelConfig::has_list(std::string_view key) const noexcept {
  const Value* value = find(key);
  return value != nullptr && (std::holds_alternative<std::vector<double>>(*value) ||
                              std::holds_alternative<std::vector<std::string>>(*value) || std::holds_alternative<Opaque>(*value));
}

bool ModelConfig::has_prefix(std::string_view prefix) const noexcept {
  const auto it = fields_.lower_bound(prefix);
  return it != fields_.end() && it->first.starts_with(prefix);
}

namespace {

// A number that is a whole one; empty when it is not.
std::optional<int64_t> whole(double value) {
  if (!(std::abs(value) <= kMaxExactInteger) || value != std::trunc(value)) return std::nullopt;
  return static_cast<int64_t>(value);
}

std::string text_of(double value) {
  const auto number = whole(value);
  return number ? std::to_string(*number) : std::to_string(value);
}

std::string range_text(int64_t min, int64_t max) { return std::to_string(min) + " to " + std::to_string(max); }

}  // namespace

namespace {

// How a value is shown beside another; empty for what is not compared.
struct Shown {
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(int64_t value) const { return text_of(static_cast<double>(value)); }
  std::string operator()(double value) const { return text_of(value); }
  std::string operator()(const std::string& value) const { return in_quotes(printable(value, 40)); }
  template <typename T>
  std::string operator()(const T& /*a list*/) const {
    return {};
  }
};

}  // namespace

void ModelConfig::note_contradiction(std::string_view counts, std::string_view other) {
  const Value* first = find_exactly(counts);
  const Value* second = find_exactly(other);
  if (first == nullptr || second == nullptr) return;
  const std::string a = std::visit(Shown{}, *first), b = std::visit(Shown{}, *second);
  if (a.empty() || b.empty() || a == b) return;
  notes_.push_back(quoted(counts) + " is " + a + " and " + in_quotes(other) + " is " + b + "; the first counts");
}

// Whether there are a rope_scaling and a rope_parameters, and the first says something that the second does not say.
bool ModelConfig::scaling_differs() const {
  constexpr std::string_view kScaling = "rope_scaling.", kParameters = "rope_parameters.";
  if (!has_prefix(kParameters)) return false;
  for (auto it = fields_.lower_bound(kScaling); it != fields_.end() && it->first.starts_with(kScaling); ++it) {
    const Value* other = find_exactly(std::string(kParameters).append(it->first.substr(kScaling.size())));
    if (other == nullptr || std::visit(Shown{}, it->second) != std::visit(Shown{}, *other)) return true;
  }
  return false;
}

void ModelConfig::note_contradictions() {
  if (scaling_differs()) {
    notes_.emplace_back("config.json has 'rope_scaling' and another 'rope_parameters'; rope_scaling counts, as in transformers");
  }
  for (const auto& [counts, other] : kSpellings) {
    if (!counts.starts_with("rope_parameters.") || !has_prefix("rope_scaling.")) note_contradiction(counts, other);
  }
  for (const Aliases& aliases : kAliases) {
    std::string_view counts = aliases.key;
    for (const std::string_view older : aliases.older) {
      if (older.empty() || older == kAmbiguousName) continue;
      if (find_exactly(counts) == nullptr) counts = older;
      if (counts != older) note_contradiction(counts, older);
    }
  }
}

std::optional<int64_t> ModelConfig::find_int(std::string_view key, int64_t min, int64_t max) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  std::optional<int64_t> result;
  if (const auto* i = std::get_if<int64_t>(value)) result = *i;
  if (const auto* f = std::get_if<double>(value)) result = whole(*f);
  if (!result) fail(key, "is not an integer");
  if (*result < min || *result > max) fail(key, "is " + std::to_string(*result) + ", expected " + range_text(min, max));
  return result;
}

int64_t ModelConfig::get_int(std::string_view key, int64_t min, int64_t max) const {
  const auto value = find_int(key, min, max);
  if (!value) fail(key, "is missing");
  return *value;
}

int64_t ModelConfig::get_count(std::string_view key) const { return get_int(key, 1, kMaxCount); }

int64_t ModelConfig::get_count(std::string_view key, int64_t absent) const { return find_int(key, 1, kMaxCount).value_or(absent); }

std::optional<double> ModelConfig::find_float(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  std::optional<double> result;
  if (const auto* i = std::get_if<int64_t>(value)) result = static_cast<double>(*i);
  if (const auto* f = std::get_if<double>(value)) result = *f;
  if (const auto* s = std::get_if<std::string>(value)) fail(key, "is " + in_quotes(printable(*s, 40)) + ", not a finite number");
  if (!result || !std::isfinite(*result)) fail(key, "is not a finite number");
  return result;
}

double ModelConfig::get_float(std::string_view key) const {
  const auto value = find_float(key);
  if (!value) fail(key, "is missing");
  return *value;
}

double ModelConfig::get_float(std::string_view key, double absent) const { return find_float(key).value_or(absent); }

bool ModelConfig::get_bool(std::string_view key, bool absent) const {
  const Value* value = find(key);
  if (value == nullptr) return absent;
  if (const auto* b = std::get_if<bool>(value)) return *b;
  fail(key, "is not true or false");
}

std::optional<std::string> ModelConfig::find_string(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* s = std::get_if<std::string>(value)) return *s;
  fail(key, "is not a string");
}

std::optional<std::vector<int64_t>> ModelConfig::find_int_array(std::string_view key, int64_t min, int64_t max) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* numbers = std::get_if<std::vector<double>>(value);
  if (numbers == nullptr) fail(key, "is not an array of integers");
  std::vector<int64_t> result;
  result.reserve(numbers->size());
  for (size_t i = 0; i < numbers->size(); ++i) {
    const auto number = whole((*numbers)[i]);
    const auto element = [&] { return std::string(key).append("[").append(std::to_string(i)).append("]"); };
    if (!number) fail(element(), "is not an integer");
    if (*number < min || *number > max) fail(element(), "is " + std::to_string(*number) + ", expected " + range_text(min, max));
    result.push_back(*number);
  }
  return result;
}

std::optional<std::vector<std::string>> ModelConfig::find_string_array(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* strings = std::get_if<std::vector<std::string>>(value)) return *strings;
  if (const auto* numbers = std::get_if<std::vector<double>>(value); numbers != nullptr && numbers->empty()) {
    return std::vector<std::string>{};
  }
  fail(key, "is not an array of strings");
}

std::vector<int64_t> ModelConfig::find_token_ids(std::string_view key) const {
  constexpr int64_t kNone = -1;
  std::vector<int64_t> ids;
  if (has_list(key)) {
    ids = find_int_array(key, INT32_MIN, INT32_MAX).value_or(ids);
  } else {
    ids.push_back(find_int(key, INT32_MIN, INT32_MAX).value_or(kNone));
  }
  std::erase_if(ids, [](int64_t id) { return id < 0; });
  return ids;
}

ModelConfig load_config(const ModelFolder& folder) {
  const std::string text = folder.read_text("config.json", kMaxBytes);
  ModelConfig config = ModelConfig::parse(text);
  constexpr const char* kGeneration = "generation_config.json";
  if (!folder.has(kGeneration)) return config;
  try {
    return ModelConfig::parse(text, folder.read_text(kGeneration, kMaxBytes));
  } catch (const Error& error) {
    config.notes_.push_back(std::string(kGeneration) + ": " + error.message() + "; what it says about sampling and end tokens is left out");
  }
  return config;
}

}  // namespace quern
