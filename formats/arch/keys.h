#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/arch/config.h"
#include "formats/gguf/metadata.h"

namespace quern::arch {

// Sets `{arch}.SUFFIX` keys with the value types that loaders expect.
class KeyWriter {
 public:
  KeyWriter(std::string_view arch, Metadata& metadata) : arch_(arch), metadata_(metadata) {}

  void count(std::string_view suffix, int64_t value);  // u32
  void real(std::string_view suffix, double value);    // f32
  void flag(std::string_view suffix, bool value);
  void text(std::string_view suffix, std::string value);
  void set(std::string_view suffix, MetaValue value);

 private:
  std::string_view arch_;
  Metadata& metadata_;
};

// Sizes that every family has.
struct CommonDims {
  int64_t hidden;
  int64_t vocab;
  int64_t layers;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
};

// head_dim: of the config, else `head_dim_default` if positive, else hidden / heads (which must divide). kv_heads: absent means heads.
CommonDims read_dims(const ModelConfig& config, int64_t head_dim_default = 0);

int64_t read_expert_count(const ModelConfig& config);  // throws kFormat when absent

// Position scaling as the config states it, under either spelling: rope_scaling (transformers v4), else rope_parameters (v5, where
// theta lives inside as well and the object may be wrapped per kind of layer).
struct RopeConfig {
  std::string type = "default";  // default, linear, dynamic, yarn, llama3
  double theta = 10000;
  std::optional<double> theta_sliding;  // own theta of the sliding-window layers
  std::optional<double> factor, beta_fast, beta_slow, attention_factor, extrapolation_factor, mscale, mscale_all_dim, low_freq_factor,
      high_freq_factor;
  std::optional<int64_t> original_context;
  std::optional<bool> truncate;  // round the correction bounds of yarn
};

// `inner`: the wrapped object to prefer inside rope_parameters. Throws kUnsupported for a rope_type that none of the families has
// (longrope, mrope ...) and kFormat for a missing or non-positive parameter.
RopeConfig read_rope(const ModelConfig& config, double default_theta, std::string_view inner = "full_attention");

// rope.freq_base and rope.scaling.*. Source of names: llama.cpp gguf-py/gguf/constants.py, conversion/base.py.
void set_rope_keys(const RopeConfig& rope, KeyWriter& keys);

// Divisors of the head_dim/2 base frequencies under rope_type llama3 (the tensor rope_freqs.weight).
// Source: transformers modeling_rope_utils.py (_compute_llama3_parameters); computed in double.
std::vector<float> llama3_rope_factors(const RopeConfig& rope, int64_t head_dim);

// Keys that every family has: block_count, context_length, embedding_length, feed_forward_length (if the config has it), head counts,
// rope, epsilon, expert counts, and head_dim if the config states it.
struct CommonKeys {
  int64_t block_count;
  int64_t head_count_kv;
  double default_eps;
};
void set_common_keys(const ModelConfig& config, const CommonDims& dims, const RopeConfig& rope, const CommonKeys& common, KeyWriter& keys);

// Refusals shared by all families; each throws kUnsupported with the value found.
void refuse_unless_silu(const ModelConfig& config);
void refuse_sliding_layers(const ModelConfig& config);  // a layer_types entry other than full_attention
void refuse_partial_rotary(const ModelConfig& config);  // heads of which only a part is rotated
[[noreturn]] void refuse(const std::string& reason);    // "config.json: REASON"

}  // namespace quern::arch
