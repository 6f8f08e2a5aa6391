#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>

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

inline Metadata keys_of(const ModelConfig& config, bool mtp = false) {
  Metadata metadata;
  find_arch(config).set_metadata(config, mtp, metadata);
  return metadata;
}

}  // namespace quern
