#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "formats/checkpoint/transforms.h"
#include "tests/formats/builders.h"

namespace quern::test {

// Writes a DeepSeek-V4-shaped checkpoint of zeros in holes: any size, no disk. `config` is config.json; names and shapes come from
// the architecture's rules, dtypes from the role: FP4 pairs for routed experts, `dense` (128x128 FP8 or BF16) for what else mixes may
// quantize, I64 tables, F32 and BF16 for the rest. Zero scales are 2^-127, which BF16 cannot hold. Returns the number of stored tensors.
inline size_t write_sparse_v4(const std::filesystem::path& folder, const nlohmann::json& config, int n_shards,
                              DType dense = DType::F8_E4M3) {
  write_text(folder / "config.json", config.dump());
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(std::filesystem::path(QUERN_TEST_DATA) / "models" / "tiny-v4-flash" / name, folder / name);
  }
  const ModelConfig parsed = ModelConfig::parse(config.dump());
  const ArchRules rules = find_arch(parsed).rules(parsed, false, [](std::string_view) { return false; });
  std::vector<SafetensorsBuilder> shards(static_cast<size_t>(n_shards));
  size_t count = 0, next = 0;
  const auto add = [&](const std::string& name, DType dtype, const Shape& shape) {
    shards[next % shards.size()].add_zeros(name, dtype, shape);
    ++count;
  };
  const auto scale_name = [](const std::string& name) { return name.substr(0, name.rfind('.')) + ".scale"; };
  for (const TensorRule& rule : rules.rules) {
    const bool stacked = rule.shape.rank() == 3;
    const Shape shape = stacked ? Shape{rule.shape[1], rule.shape[2]} : rule.shape;
    for (const std::string& name : checkpoint::stored_names(rule)) {
      ++next;
      const bool f32 =
          name.find("hc_") != std::string::npos || name.ends_with("attn_sink") || name.ends_with("ape") || name.ends_with("bias");
      if (rule.keep == Keep::kInteger) {
        add(name, DType::I64, shape);
      } else if (rule.role == Role::kRoutedExpert && rule.keep == Keep::kMix) {
        add(name, DType::I8, {shape[0], shape[1] / 2});
        add(scale_name(name), DType::F8_E8M0, {shape[0], shape[1] / 32});
      } else if (dense == DType::F8_E4M3 && rule.keep == Keep::kMix && rule.layer >= 0 && shape.rank() == 2) {
        add(name, DType::F8_E4M3, shape);
        add(scale_name(name), DType::F8_E8M0, {(shape[0] + 127) / 128, (shape[1] + 127) / 128});
      } else {
        add(name, f32 ? DType::F32 : DType::BF16, shape);
      }
    }
  }
  std::map<std::string, SafetensorsBuilder> files;
  for (size_t i = 0; i < shards.size(); ++i) files["model-" + std::to_string(i + 1) + ".safetensors"] = shards[i];
  write_checkpoint(folder, files);
  return count;
}

inline nlohmann::json shipped_config(const std::string& name) {
  std::ifstream in(std::filesystem::path(QUERN_TEST_DATA) / "configs" / (name + ".json"));
  return nlohmann::json::parse(in);
}

}  // namespace quern::test
