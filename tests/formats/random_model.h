#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "formats/checkpoint/transforms.h"
#include "formats/types/float_convert.h"
#include "tests/formats/builders.h"

// Checkpoints of random weights in the official layout of their family, from a config.json alone: names and shapes follow from the
// family's rules, encodings from what the family publishes. Weights are scaled so that activations stay near one, as in trained
// models. Same bytes on every run.
//
//   write_random_model(QUERN_TEST_DATA "/random-models/deepseek-v3-odd.json", QUERN_TEST_DATA "/models", folder);

namespace quern::test {

class RandomModel {
 public:
  explicit RandomModel(const ModelConfig& config)
      : config_(config), arch_(find_arch(config)), fused_(config.get_bool("quern_test.fused", false)) {
    add_all(false);
    if (config.find_int("num_nextn_predict_layers", 0, 8).value_or(0) > 0) add_all(true);
  }

  // Stored tensors dealt to shards in turn; one shard has no index.
  void write(const std::filesystem::path& folder, int64_t n_shards) const {
    std::map<std::string, SafetensorsBuilder> shards;
    size_t i = 0;
    for (const auto& [name, tensor] : tensors_) {
      SafetensorsBuilder& shard = shards[shard_name(static_cast<int64_t>(i++) % n_shards, n_shards)];
      shard.add(name, tensor.dtype, tensor.shape, tensor.bytes);
    }
    if (n_shards > 1) return write_checkpoint(folder, shards);
    write_bytes(folder / "model.safetensors", shards.begin()->second.file());
  }

 private:
  struct Stored {
    DType dtype;
    Shape shape;
    Bytes bytes;
  };
  enum class Encoding { kBf16, kF32, kTable, kFp8, kFp4, kMxfp4 };

  static std::string shard_name(int64_t i, int64_t n) {
    if (n == 1) return "model.safetensors";
    return "model-0000" + std::to_string(i + 1) + "-of-0000" + std::to_string(n) + ".safetensors";
  }

  void add_all(bool mtp) {
    const HasTensor stored = [&](std::string_view name) {
      if (name.ends_with("gate_up_proj") || name.ends_with("mlp.gate.weight")) return fused_;
      return mtp && !name.ends_with("main_proj.weight") && !name.starts_with("model.embed") && name.find(".experts.") == name.npos &&
             name.find("self_attn") == name.npos;
    };
    for (const TensorRule& rule : arch_.rules(config_, mtp, stored).rules) {
      for (const std::string& name : checkpoint::stored_names(rule)) add(name, rule);
    }
  }

  void add(const std::string& name, const TensorRule& rule) {
    if (tensors_.contains(name)) return;
    if (const auto original = tensors_.find(rule.drop_if_equal_to); original != tensors_.end()) {
      tensors_[name] = original->second;
      return;
    }
    seed_ = 14695981039346656037ULL;  // FNV-1a of the name: each tensor has its own stream, whatever the order
    for (char c : name) seed_ = (seed_ ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
    const Shape shape = stored_shape(rule);
    switch (encoding(name, rule)) {
      case Encoding::kBf16:
        tensors_[name] = floats(shape, DType::BF16, rule);
        return;
      case Encoding::kF32:
        tensors_[name] = floats(shape, DType::F32, rule);
        return;
      case Encoding::kTable:
        tensors_[name] = table(shape);
        return;
      case Encoding::kFp8:
        return add_fp8(name, shape);
      case Encoding::kFp4:
        return add_fp4(name, name.substr(0, name.size() - 6) + "scale", {shape[0], shape[1] / 2}, {shape[0], shape[1] / 32}, shape[1]);
      case Encoding::kMxfp4:
        return add_fp4(name, name.substr(0, name.size() - 6) + "scales", {shape[0], shape[1], shape[2] / 32, 16},
                       {shape[0], shape[1], shape[2] / 32}, shape[2]);
    }
  }

  static Shape stored_shape(const TensorRule& rule) {
    std::vector<int64_t> dims(rule.shape.dims().begin(), rule.shape.dims().end());
    switch (rule.transform) {
      case Transform::kSplitKeyB:
        return {rule.n_head * (rule.nope_dim + rule.value_dim), rule.shape[1]};
      case Transform::kSplitValueB:
        return {rule.n_head * (rule.nope_dim + rule.value_dim), rule.shape[2]};
      case Transform::kEvenRows:
      case Transform::kOddRows:
      case Transform::kFirstHalfRows:
      case Transform::kSecondHalfRows:
        dims[1] *= 2;
        break;
      case Transform::kConcatColumns:
        dims[1] /= 2;
        break;
      default:
        if (rule.stored.find("{e}") != std::string::npos) dims.erase(dims.begin());
    }
    return Shape(std::span<const int64_t>(dims));
  }

  Encoding encoding(const std::string& name, const TensorRule& rule) const {
    const bool expert = rule.role == Role::kRoutedExpert;
    const bool matrix = rule.role == Role::kAttention || rule.role == Role::kSharedExpert || rule.role == Role::kDenseFfn;
    if (name.ends_with("_blocks")) return Encoding::kMxfp4;
    if (rule.keep == Keep::kInteger) return Encoding::kTable;
    if (arch_.gguf_arch == "deepseek4") {
      if (expert) return Encoding::kFp4;
      if (rule.keep == Keep::kF32 && rule.role != Role::kNorm) return Encoding::kF32;
      const bool indexer = rule.role == Role::kIndexer && rule.keep == Keep::kMix;
      return rule.keep == Keep::kMix && (matrix || indexer) ? Encoding::kFp8
             : rule.transform == Transform::kConcatColumns  ? Encoding::kFp8
                                                            : Encoding::kBf16;
    }
    if (name.ends_with("e_score_correction_bias")) return Encoding::kF32;
    if (config_.has_prefix("quantization_config.") && arch_.gguf_arch == "deepseek2" && rule.keep == Keep::kMix && (matrix || expert)) {
      return Encoding::kFp8;
    }
    return Encoding::kBf16;
  }

  // Uniform in [-1, 1).
  float uniform() {
    seed_ = seed_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<float>(static_cast<int32_t>(seed_ >> 32)) / 2147483648.0F;
  }

  Stored floats(const Shape& shape, DType dtype, const TensorRule& rule) {
    Stored tensor{dtype, shape, {}};
    const bool norm = rule.role == Role::kNorm;
    const bool vector = shape.rank() == 1 || rule.name.ends_with(".bias") || rule.name.ends_with("_ape.weight");
    const bool embedding = rule.role == Role::kTokenEmbedding && !config_.get_bool("tie_word_embeddings", false);
    // A uniform variable of half-width sqrt(3 / n) has variance 1 / n.
    const float spread = norm ? 0.2F : vector ? 0.3F : embedding ? 1.7F : std::sqrt(3.0F / static_cast<float>(shape.row_length()));
    std::vector<float> values(static_cast<size_t>(shape.n_elements()));
    for (float& value : values) value = (norm ? 1.0F : 0.0F) + spread * uniform();
    if (dtype == DType::F32) {
      tensor.bytes = values_to_bytes(values);
    } else {
      std::vector<uint16_t> rounded(values.size());
      std::ranges::transform(values, rounded.begin(), f32_to_bf16);
      tensor.bytes = values_to_bytes(rounded);
    }
    return tensor;
  }

  // Every row names distinct experts.
  Stored table(const Shape& shape) {
    std::vector<int64_t> values;
    const int64_t experts = config_.get_count("num_experts");
    for (int64_t row = 0; row < shape[0]; ++row) {
      const auto first = static_cast<int64_t>((uniform() + 1) * 0.5F * static_cast<float>(experts));
      for (int64_t i = 0; i < shape[1]; ++i) values.push_back((first + i) % experts);
    }
    return {DType::I64, shape, values_to_bytes(values)};
  }

  // Codes of magnitude 1/8 to 3.75, root mean square 1.4. V4 scales are powers of two, V3 scales any F32.
  void add_fp8(const std::string& name, const Shape& shape) {
    const bool v4 = arch_.gguf_arch == "deepseek4";
    Stored tensor{DType::F8_E4M3, shape, {}};
    for (int64_t i = 0; i < shape.n_elements(); ++i) {
      const float u = uniform();
      const auto code = static_cast<uint8_t>(0x20 + static_cast<int>(std::abs(u) * 39.99F));
      tensor.bytes.push_back(static_cast<std::byte>(code | (u < 0 ? 0x80 : 0)));
    }
    const Shape grid = {(shape[0] + 127) / 128, (shape[1] + 127) / 128};
    Stored scales{v4 ? DType::F8_E8M0 : DType::F32, grid, {}};
    const float scale = 1.0F / (1.4F * std::sqrt(static_cast<float>(shape[1])));
    for (int64_t i = 0; i < grid.n_elements(); ++i) {
      if (v4) {
        scales.bytes.push_back(static_cast<std::byte>(127 + std::ilogb(scale) + (uniform() < 0 ? 0 : 1)));
      } else {
        append(scales.bytes, values_to_bytes<float>({scale * (1 + 0.3F * uniform())}));
      }
    }
    tensors_[v4 ? name.substr(0, name.size() - 6) + "scale" : name + "_scale_inv"] = std::move(scales);
    tensors_[name] = std::move(tensor);
  }

  // Codes of root mean square 2.9.
  void add_fp4(const std::string& name, const std::string& scale_name, const Shape& packed, const Shape& grid, int64_t cols) {
    const bool v4 = arch_.gguf_arch == "deepseek4";
    Stored tensor{v4 ? DType::I8 : DType::U8, packed, {}};
    for (int64_t i = 0; i < packed.n_elements(); ++i) {
      tensor.bytes.push_back(static_cast<std::byte>(static_cast<uint8_t>((uniform() + 1) * 127.99F)));
    }
    Stored scales{v4 ? DType::F8_E8M0 : DType::U8, grid, {}};
    const int exponent = 127 + std::ilogb(1.0F / (2.9F * std::sqrt(static_cast<float>(cols))));
    for (int64_t i = 0; i < grid.n_elements(); ++i) {
      scales.bytes.push_back(static_cast<std::byte>(exponent + (uniform() < 0 ? 0 : 1)));
    }
    tensors_[scale_name] = std::move(scales);
    tensors_[name] = std::move(tensor);
  }

  const ModelConfig& config_;
  const ArchDescriptor& arch_;
  bool fused_;
  uint64_t seed_ = 0;
  std::map<std::string, Stored> tensors_;
};

// config_file: one of tests/data/random-models; donors: folder of the miniatures whose tokenizer is copied.
inline void write_random_model(const std::filesystem::path& config_file, const std::filesystem::path& donors,
                               const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  fs::create_directories(folder);
  fs::copy_file(config_file, folder / "config.json", fs::copy_options::overwrite_existing);
  const ModelConfig config = load_config(folder);
  const fs::path donor = donors / config.find_string("quern_test.tokenizer").value();
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "tokenizer.model"}) {
    if (fs::exists(donor / name)) fs::copy_file(donor / name, folder / name, fs::copy_options::overwrite_existing);
  }
  RandomModel(config).write(folder, config.get_count("quern_test.shards", 1));
}

}  // namespace quern::test
