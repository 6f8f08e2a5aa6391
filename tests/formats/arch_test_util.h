#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "tests/formats/expect_error.h"

namespace quern {

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// tests/data/configs/NAME.json
inline ModelConfig real_config(const std::string& name) {
  return ModelConfig::parse(slurp(std::filesystem::path(QUERN_TEST_DATA) / "configs" / (name + ".json")));
}

inline const HasTensor kNothingStored = [](std::string_view) { return false; };

// A checkpoint that stores exactly these names.
inline HasTensor stores(std::set<std::string, std::less<>> names) {
  return [names = std::move(names)](std::string_view name) { return names.contains(name); };
}

inline ArchRules rules_of(const ModelConfig& config, bool mtp = false, const HasTensor& stored = kNothingStored) {
  return find_arch(config).rules(config, mtp, stored);
}

inline const TensorRule* find_rule(const ArchRules& rules, std::string_view name) {
  for (const TensorRule& rule : rules.rules) {
    if (rule.name == name) return &rule;
  }
  return nullptr;
}

// Stored names that a rule reads, slices in order.
inline std::vector<std::string> expand_stored(const TensorRule& rule) {
  std::vector<std::string> names;
  std::string_view rest = rule.stored;
  while (!rest.empty()) {
    const std::string one(rest.substr(0, rest.find('|')));
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
    const size_t e = one.find("{e}");
    if (e == std::string::npos) {
      names.push_back(one);
      continue;
    }
    for (int64_t i = 0; i < rule.shape[0]; ++i) names.push_back(one.substr(0, e) + std::to_string(i) + one.substr(e + 3));
  }
  return names;
}

inline Metadata keys_of(const ModelConfig& config, bool mtp = false) {
  Metadata metadata;
  find_arch(config).set_metadata(config, mtp, metadata);
  return metadata;
}

}  // namespace quern
