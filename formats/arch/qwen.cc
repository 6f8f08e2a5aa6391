#include "formats/arch/families.h"
#include "formats/arch/key_reader.h"
#include "formats/arch/keys.h"
#include "formats/arch/rule_builder.h"

// Qwen2/2.5 (biases on q, k, v; also R1-Distill-Qwen), Qwen3 (per-head norms instead) and Qwen3-MoE. Rows stay as stored: loaders of
// these GGUF architectures rotate pairs (i, i + D/2) as transformers does.
// Sources: llama.cpp conversion/qwen.py, src/models/qwen{2,3,3moe}.cpp; transformers models/qwen{2,3,3_moe}.

namespace quern::arch {

namespace {

constexpr std::string_view kQwen2Name = "qwen2";
constexpr std::string_view kQwen3Name = "qwen3";
constexpr std::string_view kQwen3MoeName = "qwen3moe";
constexpr int64_t kQwen3HeadDim = 128;  // transformers' default of both Qwen3 classes

RopeConfig rope_of(const ModelConfig& config) {
  RopeConfig rope = read_rope(config, 1e4);
  if (rope.type == "llama3") refuse("rope_type 'llama3' cannot be expressed by GGUF's Qwen architectures");
  return rope;
}

void check_common(const ModelConfig& config) {
  refuse_unless_silu(config);
  refuse_partial_rotary(config);
  rope_of(config);
  const int64_t layers = config.get_count("num_hidden_layers");
  if (config.get_bool("use_sliding_window", false) && config.get_count("max_window_layers", layers) < layers) {
    refuse("use_sliding_window is true for layers from max_window_layers on; GGUF's Qwen architectures have full attention only");
  }
  refuse_sliding_layers(config);
}

void check_qwen2(const ModelConfig& config) {
  check_common(config);
  const CommonDims dims = read_dims(config);
  if (dims.heads * dims.head_dim != dims.hidden) {
    refuse("num_attention_heads x head_dim is " + std::to_string(dims.heads * dims.head_dim) +
           ", but GGUF architecture qwen2 takes hidden_size " + std::to_string(dims.hidden));
  }
}

void check_qwen3(const ModelConfig& config) {
  check_common(config);
  read_dims(config, kQwen3HeadDim);
  if (config.get_bool("attention_bias", false)) refuse("attention_bias is true; GGUF's Qwen3 architectures have no attention biases");
}

void check_qwen3moe(const ModelConfig& config) {
  check_qwen3(config);
  if (const int64_t step = config.get_count("decoder_sparse_step", 1); step != 1) {
    refuse("decoder_sparse_step is " + std::to_string(step) + ", GGUF architecture qwen3moe has experts in every layer");
  }
  if (!config.find_int_array("mlp_only_layers", 0, INT32_MAX).value_or(std::vector<int64_t>{}).empty()) {
    refuse("mlp_only_layers is not empty, GGUF architecture qwen3moe has experts in every layer");
  }
  if (!config.get_bool("norm_topk_prob", false)) {
    refuse("norm_topk_prob is false, but runtimes of GGUF architecture qwen3moe always normalise expert weights");
  }
}

void set_qwen2_metadata(const ModelConfig& config, bool mtp, Metadata& metadata) {
  if (mtp) refuse_mtp(kQwen2Name);
  KeyWriter keys(kQwen2Name, metadata);
  const CommonDims dims = read_dims(config);
  set_common_keys(config, dims, rope_of(config), {dims.layers, dims.kv_heads, 1e-6}, keys);
}

// head_dim is written even when the config leaves it to its default, which is not what loaders assume.
void set_qwen3_keys(std::string_view arch, const ModelConfig& config, bool mtp, Metadata& metadata) {
  if (mtp) refuse_mtp(arch);
  KeyWriter keys(arch, metadata);
  const CommonDims dims = read_dims(config, kQwen3HeadDim);
  set_common_keys(config, dims, rope_of(config), {dims.layers, dims.kv_heads, 1e-6}, keys);
  keys.count("attention.key_length", dims.head_dim);
  keys.count("attention.value_length", dims.head_dim);
}

void set_qwen3_metadata(const ModelConfig& config, bool mtp, Metadata& metadata) { set_qwen3_keys(kQwen3Name, config, mtp, metadata); }

void set_qwen3moe_metadata(const ModelConfig& config, bool mtp, Metadata& metadata) {
  set_qwen3_keys(kQwen3MoeName, config, mtp, metadata);
  KeyWriter(kQwen3MoeName, metadata).count("expert_feed_forward_length", config.get_count("moe_intermediate_size"));
}

void read_hparams(const KeyReader& keys, Hparams& h) { read_uniform_layers(keys, h, RopePairing::kHalves); }

void add_attention(const CommonDims& dims, const LayerNames& layer, bool biased, RuleBuilder& b) {
  const std::string stored = layer.stored + "self_attn.";
  b.add_linear(stored + "q_proj", layer.gguf + "attn_q", dims.heads * dims.head_dim, dims.hidden, biased);
  b.add_linear(stored + "k_proj", layer.gguf + "attn_k", dims.kv_heads * dims.head_dim, dims.hidden, biased);
  b.add_linear(stored + "v_proj", layer.gguf + "attn_v", dims.kv_heads * dims.head_dim, dims.hidden, biased);
  b.add(stored + "o_proj.weight", layer.gguf + "attn_output.weight", {dims.hidden, dims.heads * dims.head_dim});
}

void add_layer_norms(const CommonDims& dims, const LayerNames& layer, RuleBuilder& b) {
  b.add(layer.stored + "input_layernorm.weight", layer.gguf + "attn_norm.weight", {dims.hidden});
  b.add(layer.stored + "post_attention_layernorm.weight", layer.gguf + "ffn_norm.weight", {dims.hidden});
}

void add_head_norms(const CommonDims& dims, const LayerNames& layer, RuleBuilder& b) {
  b.add(layer.stored + "self_attn.q_norm.weight", layer.gguf + "attn_q_norm.weight", {dims.head_dim});
  b.add(layer.stored + "self_attn.k_norm.weight", layer.gguf + "attn_k_norm.weight", {dims.head_dim});
}

ArchRules qwen2_rules(const ModelConfig& config, bool mtp, const HasTensor& stored) {
  if (mtp) refuse_mtp(kQwen2Name);
  RuleBuilder b(kQwen2Name, stored);
  const CommonDims dims = read_dims(config);
  add_ends(config, dims, b);
  for (int64_t i = 0; i < dims.layers; ++i) {
    const LayerNames layer = model_layer(i);
    add_layer_norms(dims, layer, b);
    add_attention(dims, layer, true, b);
    add_dense_ffn(layer.stored + "mlp.", layer.gguf, "", dims.hidden, config.get_count("intermediate_size"), false, b);
  }
  b.ignore("*.rotary_emb.inv_freq");
  return b.finish();
}

ArchRules qwen3_rules(const ModelConfig& config, bool mtp, const HasTensor& stored) {
  if (mtp) refuse_mtp(kQwen3Name);
  RuleBuilder b(kQwen3Name, stored);
  const CommonDims dims = read_dims(config, kQwen3HeadDim);
  add_ends(config, dims, b);
  for (int64_t i = 0; i < dims.layers; ++i) {
    const LayerNames layer = model_layer(i);
    add_layer_norms(dims, layer, b);
    add_attention(dims, layer, false, b);
    add_head_norms(dims, layer, b);
    add_dense_ffn(layer.stored + "mlp.", layer.gguf, "", dims.hidden, config.get_count("intermediate_size"), false, b);
  }
  b.ignore("*.rotary_emb.inv_freq");
  return b.finish();
}

ArchRules qwen3moe_rules(const ModelConfig& config, bool mtp, const HasTensor& stored) {
  if (mtp) refuse_mtp(kQwen3MoeName);
  RuleBuilder b(kQwen3MoeName, stored);
  const CommonDims dims = read_dims(config, kQwen3HeadDim);
  const int64_t experts = read_expert_count(config);
  const int64_t width = config.get_count("moe_intermediate_size");
  add_ends(config, dims, b);
  for (int64_t i = 0; i < dims.layers; ++i) {
    const LayerNames layer = model_layer(i);
    add_layer_norms(dims, layer, b);
    add_attention(dims, layer, false, b);
    add_head_norms(dims, layer, b);
    b.add(layer.stored + "mlp.gate.weight", layer.gguf + "ffn_gate_inp.weight", {experts, dims.hidden});
    add_experts(layer.stored + "mlp.experts.", layer.gguf, {"gate_proj", "up_proj", "down_proj"}, experts, dims.hidden, width, b);
  }
  b.ignore("*.rotary_emb.inv_freq");
  return b.finish();
}

}  // namespace

const ArchDescriptor kQwen2 = {
    .gguf_arch = kQwen2Name,
    .hf_architectures = {"Qwen2ForCausalLM"},
    .hf_model_types = {"qwen2"},
    .check = check_qwen2,
    .set_metadata = set_qwen2_metadata,
    .read_hparams = read_hparams,
    .rules = qwen2_rules,
};

const ArchDescriptor kQwen3 = {
    .gguf_arch = kQwen3Name,
    .hf_architectures = {"Qwen3ForCausalLM"},
    .hf_model_types = {"qwen3"},
    .check = check_qwen3,
    .set_metadata = set_qwen3_metadata,
    .read_hparams = read_hparams,
    .rules = qwen3_rules,
};

const ArchDescriptor kQwen3Moe = {
    .gguf_arch = kQwen3MoeName,
    .hf_architectures = {"Qwen3MoeForCausalLM"},
    .hf_model_types = {"qwen3_moe"},
    .check = check_qwen3moe,
    .set_metadata = set_qwen3moe_metadata,
    .read_hparams = read_hparams,
    .rules = qwen3moe_rules,
};

}  // namespace quern::arch
