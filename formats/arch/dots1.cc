#include <algorithm>
#include <cmath>

#include "formats/arch/families.h"
#include "formats/arch/key_reader.h"
#include "formats/arch/keys.h"
#include "formats/arch/rule_builder.h"
#include "formats/base/error.h"

// dots.llm1: grouped attention with a norm per head of queries and keys as in Qwen3, and the mixture of DeepSeek-V3 after the first dense
// layers: sigmoid scores, a bias for the choice alone, one shared network. Rows stay as stored: loaders rotate pairs (i, i + D/2).
// Sources: llama.cpp conversion/dots1.py, src/models/dots1.cpp; transformers models/dots1.

namespace quern::arch {

namespace {

constexpr std::string_view kName = "dots1";

struct Dims : CommonDims {
  int64_t dense_layers;
  int64_t experts;
  int64_t expert_width;
  int64_t shared_experts;
};

Dims dims_of(const ModelConfig& config) {
  Dims d{};
  static_cast<CommonDims&>(d) = read_dims(config);
  d.dense_layers = std::min(d.layers, config.find_int("first_k_dense_replace", 0, INT32_MAX).value_or(0));
  d.experts = read_expert_count(config);
  d.expert_width = config.get_count("moe_intermediate_size");
  d.shared_experts = config.find_int("n_shared_experts", 0, INT32_MAX).value_or(0);
  return d;
}

RopeConfig rope_of(const ModelConfig& config) {
  RopeConfig rope = read_rope(config, 1e4);
  if (rope.type == "llama3") refuse("rope_type 'llama3' cannot be expressed by GGUF architecture dots1");
  return rope;
}

void check(const ModelConfig& config) {
  refuse_unless_silu(config);
  refuse_sliding_layers(config);
  refuse_partial_rotary(config);
  rope_of(config);
  const Dims d = dims_of(config);
  if (config.get_bool("attention_bias", false)) refuse("attention_bias is true; GGUF architecture dots1 has no attention biases");
  if (d.kv_heads != d.heads) {
    refuse("num_key_value_heads is " + std::to_string(d.kv_heads) + ", loaders of GGUF architecture dots1 take num_attention_heads " +
           std::to_string(d.heads));
  }
  // Releases state the name of the method in the place of the function.
  const std::string scoring = config.find_string("scoring_func").value_or("sigmoid");
  if (scoring != "sigmoid" && scoring != "noaux_tc") refuse("scoring_func '" + printable(scoring) + "' is not known (sigmoid is)");
  if (config.find_int("n_group", 0, INT32_MAX).value_or(1) > 1) refuse("n_group is set; GGUF architecture dots1 has no expert groups");
  if (const int64_t freq = config.get_count("moe_layer_freq", 1); freq != 1) {
    refuse("moe_layer_freq is " + std::to_string(freq) + ", GGUF architecture dots1 has experts in every layer after the dense ones");
  }
}

void set_metadata(const ModelConfig& config, bool mtp, Metadata& metadata) {
  if (mtp) refuse_mtp(kName);
  KeyWriter keys(kName, metadata);
  const Dims d = dims_of(config);
  set_common_keys(config, d, rope_of(config), {d.layers, d.kv_heads, 1e-6}, keys);
  keys.count("attention.key_length", d.head_dim);
  keys.count("attention.value_length", d.head_dim);
  keys.count("leading_dense_block_count", d.dense_layers);
  keys.count("expert_feed_forward_length", d.expert_width);
  keys.count("expert_shared_count", d.shared_experts);
  keys.count("expert_gating_func", 2);  // loaders have no function without it
  keys.real("expert_weights_scale", config.get_float("routed_scaling_factor", 1.0));
  keys.flag("expert_weights_norm", config.get_bool("norm_topk_prob", false));
}

void read_hparams(const KeyReader& keys, Hparams& h) {
  read_grouped_dims(keys, h);
  h.ropes = {read_rope_params(keys, RopePairing::kHalves, keys.count_or("rope.dimension_count", h.key_dim))};
  read_routing(keys, h);
  h.routing.gating = read_gating(keys, Gating::kSigmoid);
  h.expert_width = keys.count("expert_feed_forward_length");
  const int64_t n_dense = keys.count_or("leading_dense_block_count", 0);
  for (size_t i = 0; i < h.layers.size(); ++i) {
    h.layers[i].attention_scale = 1.0 / std::sqrt(static_cast<double>(h.key_dim));
    h.layers[i].moe = h.routing.n_experts > 0 && static_cast<int64_t>(i) >= n_dense;
  }
}

void add_attention(const Dims& d, const LayerNames& layer, RuleBuilder& b) {
  const std::string stored = layer.stored + "self_attn.", name = layer.gguf + "attn_";
  const int64_t width = d.heads * d.head_dim;
  for (const char* part : {"q", "k", "v"}) b.add(stored + part + "_proj.weight", name + part + ".weight", {width, d.hidden});
  b.add(stored + "o_proj.weight", name + "output.weight", {d.hidden, width});
  b.add(stored + "q_norm.weight", name + "q_norm.weight", {d.head_dim});
  b.add(stored + "k_norm.weight", name + "k_norm.weight", {d.head_dim});
}

void add_moe(const Dims& d, const LayerNames& layer, RuleBuilder& b) {
  const std::string stored = layer.stored + "mlp.";
  b.add(stored + "gate.weight", layer.gguf + "ffn_gate_inp.weight", {d.experts, d.hidden});
  b.add(stored + "gate.e_score_correction_bias", layer.gguf + "exp_probs_b.bias", {d.experts});
  add_experts(stored + "experts.", layer.gguf, {"gate_proj", "up_proj", "down_proj"}, d.experts, d.hidden, d.expert_width, b);
  if (d.shared_experts > 0) {
    add_dense_ffn(stored + "shared_experts.", layer.gguf, "_shexp", d.hidden, d.expert_width * d.shared_experts, false, b);
  }
}

ArchRules rules(const ModelConfig& config, bool mtp, const HasTensor& stored) {
  if (mtp) refuse_mtp(kName);
  RuleBuilder b(kName, stored);
  const Dims d = dims_of(config);
  add_ends(config, d, b);
  for (int64_t i = 0; i < d.layers; ++i) {
    const LayerNames layer = model_layer(i);
    b.add(layer.stored + "input_layernorm.weight", layer.gguf + "attn_norm.weight", {d.hidden});
    b.add(layer.stored + "post_attention_layernorm.weight", layer.gguf + "ffn_norm.weight", {d.hidden});
    add_attention(d, layer, b);
    if (i < d.dense_layers) {
      add_dense_ffn(layer.stored + "mlp.", layer.gguf, "", d.hidden, config.get_count("intermediate_size"), false, b);
    } else {
      add_moe(d, layer, b);
    }
  }
  b.ignore("*.rotary_emb.inv_freq");
  return b.finish();
}

}  // namespace

const ArchDescriptor kDots1 = {
    .gguf_arch = kName,
    .hf_architectures = {"Dots1ForCausalLM"},
    .hf_model_types = {"dots1"},
    .check = check,
    .set_metadata = set_metadata,
    .read_hparams = read_hparams,
    .rules = rules,
};

}  // namespace quern::arch
