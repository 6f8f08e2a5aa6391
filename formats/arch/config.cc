#include "formats/arch/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/base/error.h"
#include "formats/base/file.h"

// The JSON is flattened once into a map from dotted keys to values, and this file alone knows the JSON library: everything after asks typed
// questions. text_config is merged before that, member by member, so that a nested object of it takes the place of the outer one whole
// instead of mixing with it. nulls are dropped. Arrays of numbers become doubles, which are exact for the integers that configs hold
// (larger ones are refused); an array of anything else is known to be there and readable by nobody. An older name of a field is looked for
// only when the newest one is absent, so that files that carry both mean the newest.

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

std::string quoted(std::string_view key) {
  const bool generation = key.starts_with(kGenerationPrefix);
  if (generation) key.remove_prefix(kGenerationPrefix.size());
  return std::string(generation ? "generation_config.json" : "config.json") + ": '" + printable(key) + "'";
}

[[noreturn]] void fail(std::string_view key, const std::string& what) { throw Error(ErrorKind::kFormat, quoted(key) + " " + what); }

json parse_object(std::string_view text, std::string_view file) {
  if (text.size() > kMaxBytes) {
    throw Error(ErrorKind::kFormat, std::to_string(text.size()) + " bytes, at most " + std::to_string(kMaxBytes) + " expected").file(file);
  }
  const auto limit_depth = [&](int depth, json::parse_event_t, json&) {
    if (depth > kMaxDepth) throw Error(ErrorKind::kFormat, "nested deeper than " + std::to_string(kMaxDepth) + " levels").file(file);
    return true;
  };
  json root;
  try {
    root = json::parse(text, limit_depth);
  } catch (const json::parse_error& e) {
    throw Error(ErrorKind::kFormat, "not valid JSON").file(file).at(e.byte);
  } catch (const json::out_of_range&) {
    throw Error(ErrorKind::kFormat, "not valid JSON: a number is too large for a double").file(file);
  }
  if (!root.is_object()) throw Error(ErrorKind::kFormat, "a JSON object is expected").file(file);
  return root;
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

ModelConfig ModelConfig::parse(std::string_view config_json, std::string_view generation_json) {
  ModelConfig config;
  ConfigBuilder builder(config);
  const json root = parse_object(config_json, "config.json");
  json merged = root;  // field by field: a nested rope_scaling replaces the outer one as a whole
  for (const char* nested : {"llm_config", "text_config"}) {
    if (const auto it = root.find(nested); it != root.end() && it->is_object()) merged.update(*it);
  }
  builder.add("", merged);
  if (!generation_json.empty()) builder.add(std::string(kGenerationPrefix), parse_object(generation_json, "generation_config.json"));
  return config;
}

const ModelConfig::Value* ModelConfig::find(std::string_view key) const noexcept {
  if (const auto it = fields_.find(key); it != fields_.end()) return &it->second;
  for (const Aliases& aliases : kAliases) {
    if (aliases.key != key) continue;
    for (std::string_view older : aliases.older) {
      if (const auto it = fields_.find(older); it != fields_.end()) return &it->second;
    }
  }
  return nullptr;
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

std::string range_text(int64_t min, int64_t max) { return std::to_string(min) + " to " + std::to_string(max); }

}  // namespace

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

ModelConfig load_config(const ModelFolder& folder) {
  const std::string config = folder.read_text("config.json", kMaxBytes);
  constexpr const char* kGeneration = "generation_config.json";
  try {
    if (folder.has(kGeneration)) return ModelConfig::parse(config, folder.read_text(kGeneration, kMaxBytes));
  } catch (const Error&) {
    // Either file may be the broken one; parsing config.json alone reports it if it is.
  }
  return ModelConfig::parse(config);
}

}  // namespace quern
