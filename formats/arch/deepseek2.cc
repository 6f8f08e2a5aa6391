#include <algorithm>
#include <cmath>

#include "formats/arch/families.h"
#include "formats/arch/key_reader.h"
#include "formats/arch/keys.h"
#include "formats/arch/rule_builder.h"
#include "formats/base/error.h"

// DeepSeek-V2, V2-Lite, V2.5, V3, V3.1 and R1, and Kimi K2 which shares the class: latent attention (MLA) and routed plus shared
// experts. GGUF stores MLA as attention with one key head over the latent, so kv_b is split per head into k_b (transposed) and v_b.
// The rope rows stay as stored; checkpoint and GGUF both rotate neighbours.
// The MTP block is layer L of the checkpoint. The main file leaves it out, because runtimes that do not know the key
// nextn_predict_layers would run it as an ordinary layer; --mtp writes a draft file with that block and the shared ends.
// Sources: llama.cpp conversion/deepseek.py, src/models/deepseek2.cpp; deepseek-ai/DeepSeek-V3 inference/model.py, README_WEIGHTS.md.

namespace quern::arch {

namespace {

constexpr std::string_view kName = "deepseek2";

struct Dims : CommonDims {
  int64_t q_rank;  // 0: one full-rank matrix (V2-Lite)
  int64_t kv_rank;
  int64_t nope;
  int64_t rope;
  int64_t value;
  int64_t dense_width;  // 0 when every layer has experts
  int64_t dense_layers;
  int64_t experts;  // 0: a dense model
  int64_t expert_width;
  int64_t shared_experts;
  int64_t mtp_layers;
};

bool is_v2(const ModelConfig& config) { return config.find_string("model_type").value_or("") == "deepseek_v2"; }

Dims dims_of(const ModelConfig& config) {
  Dims d{};
  static_cast<CommonDims&>(d) = read_dims(config, 1);  // head_dim is not used: every part of a head has its own width
  d.q_rank = std::max<int64_t>(0, config.find_int("q_lora_rank", INT32_MIN, INT32_MAX).value_or(0));
  d.kv_rank = config.get_count("kv_lora_rank");
  d.nope = config.get_count("qk_nope_head_dim");
  d.rope = config.get_count("qk_rope_head_dim");
  d.value = config.get_count("v_head_dim");
  d.experts = config.has("num_experts") ? read_expert_count(config) : 0;
  if (d.experts == 0) {
    d.dense_layers = d.layers;
  } else {
    d.dense_layers = std::min(d.layers, config.find_int("first_k_dense_replace", 0, INT32_MAX).value_or(is_v2(config) ? 0 : 3));
    d.expert_width = config.get_count("moe_intermediate_size");
    d.shared_experts = config.find_int("n_shared_experts", 0, INT32_MAX).value_or(0);
  }
  d.dense_width = d.dense_layers > 0 ? config.get_count("intermediate_size") : 0;
  d.mtp_layers = config.find_int("num_nextn_predict_layers", 0, 64).value_or(0);
  return d;
}

std::string topk_method(const ModelConfig& config) {
  return config.find_string("topk_method").value_or(is_v2(config) ? "greedy" : "noaux_tc");
}

std::string scoring_func(const ModelConfig& config) {
  return config.find_string("scoring_func").value_or(is_v2(config) ? "softmax" : "sigmoid");
}

// Groups that take part in routing: 1 when the step is off or changes nothing.
int64_t effective_groups(const ModelConfig& config) {
  const int64_t groups = config.find_int("n_group", 0, INT32_MAX).value_or(0);
  if (groups <= 1 || topk_method(config) == "greedy") return 1;
  return config.get_int("topk_group", 1, groups) == groups ? 1 : groups;
}

void check_routing(const ModelConfig& config, const Dims& d) {
  if (d.experts == 0) return;
  if (const int64_t freq = config.get_count("moe_layer_freq", 1); freq != 1) {
    refuse("moe_layer_freq is " + std::to_string(freq) + ", GGUF architecture deepseek2 has experts in every layer after the dense ones");
  }
  const std::string method = topk_method(config), scoring = scoring_func(config);
  if (method != "greedy" && method != "group_limited_greedy" && method != "noaux_tc") {
    refuse("topk_method '" + printable(method) + "' is not known (greedy, group_limited_greedy and noaux_tc are)");
  }
  if (scoring != "softmax" && scoring != "sigmoid")
    refuse("scoring_func '" + printable(scoring) + "' is not known (softmax and sigmoid are)");
  const int64_t groups = effective_groups(config);
  if (d.experts % groups != 0 || (groups > 1 && d.experts / groups < 2)) {
    throw Error(ErrorKind::kFormat,
                "config.json: " + std::to_string(d.experts) + " experts do not form " + std::to_string(groups) + " groups of at least two");
  }
}

RopeConfig rope_of(const ModelConfig& config) {
  RopeConfig rope = read_rope(config, 1e4);
  if (rope.type == "llama3") refuse("rope_type 'llama3' cannot be expressed by GGUF architecture deepseek2");
  if (rope.type == "yarn" && rope.mscale && rope.mscale_all_dim && *rope.mscale != *rope.mscale_all_dim) {
    refuse("mscale " + std::to_string(*rope.mscale) + " and mscale_all_dim " + std::to_string(*rope.mscale_all_dim) +
           " differ; GGUF has one key for both");
  }
  return rope;
}

void check(const ModelConfig& config) {
  refuse_unless_silu(config);
  refuse_sliding_layers(config);
  if (config.get_bool("attention_bias", false)) refuse("attention_bias is true; GGUF architecture deepseek2 has no attention biases");
  if (!config.get_bool("rope_interleave", true)) {
    refuse("rope_interleave is false; GGUF architecture deepseek2 rotates neighbouring rows only");
  }
  if (config.has("index_topk")) refuse("index_topk is set: sparse attention with an indexer (DeepSeek-V3.2) is another architecture");
  rope_of(config);
  check_routing(config, dims_of(config));
}

void set_moe_keys(const ModelConfig& config, const Dims& d, KeyWriter& keys) {
  if (config.has("n_group")) {
    const int64_t groups = effective_groups(config);
    keys.count("expert_group_count", groups);
    keys.count("expert_group_used_count", groups > 1 ? config.get_int("topk_group", 1, groups) : 1);
  }
  keys.count("expert_gating_func", scoring_func(config) == "softmax" ? 1 : 2);
  keys.count("expert_feed_forward_length", d.expert_width);
  keys.count("expert_shared_count", d.shared_experts);
  keys.real("expert_weights_scale", config.get_float("routed_scaling_factor", is_v2(config) ? 1.0 : 2.5));
  if (config.get_bool("norm_topk_prob", !is_v2(config))) keys.flag("expert_weights_norm", true);
}

void set_metadata(const ModelConfig& config, bool mtp, Metadata& metadata) {
  KeyWriter keys(kName, metadata);
  const Dims d = dims_of(config);
  const RopeConfig rope = rope_of(config);
  set_common_keys(config, d, rope, {d.layers + (mtp ? d.mtp_layers : 0), 1, 1e-6}, keys);
  keys.count("attention.key_length", d.kv_rank + d.rope);
  keys.count("attention.value_length", d.kv_rank);
  keys.count("attention.key_length_mla", d.nope + d.rope);
  keys.count("attention.value_length_mla", d.value);
  keys.count("attention.kv_lora_rank", d.kv_rank);
  // 0 says that q is one matrix. llama.cpp requires the key of all but the layer counts by which it knows V2-Lite.
  keys.count("attention.q_lora_rank", d.q_rank);
  keys.count("rope.dimension_count", d.rope);
  // Readers divide by 0.1 again: the key was named before it was understood.
  if (rope.mscale_all_dim) keys.real("rope.scaling.yarn_log_multiplier", 0.1 * *rope.mscale_all_dim);
  keys.count("leading_dense_block_count", d.dense_layers);
  keys.count("vocab_size", d.vocab);
  if (d.experts > 0) {
    set_moe_keys(config, d, keys);
  } else {  // loaders require both
    keys.count("expert_feed_forward_length", d.dense_width);
    keys.count("expert_shared_count", 0);
  }
  if (mtp) keys.count("nextn_predict_layers", d.mtp_layers);
}

// New files describe MLA as multi-query attention over the latent and name the true head sizes *_mla; older ones name the head sizes
// directly and store kv_b whole.
void read_hparams(const KeyReader& keys, Hparams& h) {
  h.kv_rank = keys.count("attention.kv_lora_rank");
  h.q_rank = keys.count_or("attention.q_lora_rank", 0);
  h.key_dim = keys.count_or("attention.key_length_mla", 0);
  h.split_kv_b = h.key_dim != 0;
  if (h.split_kv_b) {
    h.value_dim = keys.count("attention.value_length_mla");
  } else {
    h.key_dim = keys.count("attention.key_length");
    h.value_dim = keys.count("attention.value_length");
  }
  RopeParams rope = read_rope_params(keys, RopePairing::kAdjacent, keys.count("rope.dimension_count"));
  const double multiplier = keys.number_or("rope.scaling.yarn_log_multiplier", 0.0);
  double gain = 1.0;
  if (rope.yarn && multiplier != 0.0) {
    gain = yarn_gain(rope.factor, multiplier);
    rope.magnitude = 1.0;
  }
  h.ropes = {rope};
  read_routing(keys, h);
  h.routing.gating = read_gating(keys, Gating::kSoftmax);
  h.routing.group_top_two = h.routing.gating != Gating::kSoftmax;
  const int64_t n_dense = keys.count_or("leading_dense_block_count", 0);
  if (h.routing.n_experts > 0) h.expert_width = keys.count("expert_feed_forward_length");
  for (size_t i = 0; i < h.layers.size(); ++i) {
    h.layers[i].attention = AttentionKind::kLatent;
    h.layers[i].attention_scale = gain * gain / std::sqrt(static_cast<double>(h.key_dim));
    h.layers[i].moe = h.routing.n_experts > 0 && static_cast<int64_t>(i) >= n_dense;
  }
}

void add_attention(const Dims& d, const LayerNames& layer, RuleBuilder& b) {
  const std::string stored = layer.stored + "self_attn.", name = layer.gguf + "attn_";
  const int64_t q_rows = d.heads * (d.nope + d.rope);
  if (d.q_rank > 0) {
    b.add(stored + "q_a_proj.weight", name + "q_a.weight", {d.q_rank, d.hidden});
    b.add(stored + "q_a_layernorm.weight", name + "q_a_norm.weight", {d.q_rank});
    b.add(stored + "q_b_proj.weight", name + "q_b.weight", {q_rows, d.q_rank});
  } else {
    b.add(stored + "q_proj.weight", name + "q.weight", {q_rows, d.hidden});
  }
  b.add(stored + "kv_a_proj_with_mqa.weight", name + "kv_a_mqa.weight", {d.kv_rank + d.rope, d.hidden});
  b.add(stored + "kv_a_layernorm.weight", name + "kv_a_norm.weight", {d.kv_rank});
  const auto add_split = [&](const char* part, Shape shape, Transform transform) {
    TensorRule& rule = b.add(stored + "kv_b_proj.weight", name + part, shape, transform);
    rule.n_head = d.heads;
    rule.nope_dim = d.nope;
    rule.value_dim = d.value;
  };
  add_split("k_b.weight", {d.heads, d.kv_rank, d.nope}, Transform::kSplitKeyB);
  add_split("v_b.weight", {d.heads, d.value, d.kv_rank}, Transform::kSplitValueB);
  b.add(stored + "o_proj.weight", name + "output.weight", {d.hidden, d.heads * d.value});
}

void add_moe(const ModelConfig& config, const Dims& d, const LayerNames& layer, RuleBuilder& b) {
  const std::string stored = layer.stored + "mlp.";
  b.add(stored + "gate.weight", layer.gguf + "ffn_gate_inp.weight", {d.experts, d.hidden});
  if (topk_method(config) == "noaux_tc") {
    b.add(stored + "gate.e_score_correction_bias", layer.gguf + "exp_probs_b.bias", {d.experts});
  }
  add_experts(stored + "experts.", layer.gguf, {"gate_proj", "up_proj", "down_proj"}, d.experts, d.hidden, d.expert_width, b);
  if (d.shared_experts > 0) {
    add_dense_ffn(stored + "shared_experts.", layer.gguf, "_shexp", d.hidden, d.expert_width * d.shared_experts, false, b);
  }
}

void add_layer(const ModelConfig& config, const Dims& d, int64_t i, RuleBuilder& b) {
  const LayerNames layer = model_layer(i);
  b.add(layer.stored + "input_layernorm.weight", layer.gguf + "attn_norm.weight", {d.hidden});
  b.add(layer.stored + "post_attention_layernorm.weight", layer.gguf + "ffn_norm.weight", {d.hidden});
  add_attention(d, layer, b);
  if (i < d.dense_layers) {
    add_dense_ffn(layer.stored + "mlp.", layer.gguf, "", d.hidden, d.dense_width, false, b);
  } else {
    add_moe(config, d, layer, b);
  }
}

// What the MTP block has beyond a layer. Its own embedding and output matrix are copies of the model's in every release.
void add_nextn(const Dims& d, int64_t i, RuleBuilder& b) {
  const LayerNames layer = model_layer(i);
  const std::string name = layer.gguf + "nextn.";
  b.add(layer.stored + "eh_proj.weight", name + "eh_proj.weight", {d.hidden, 2 * d.hidden});
  b.add(layer.stored + "enorm.weight", name + "enorm.weight", {d.hidden});
  b.add(layer.stored + "hnorm.weight", name + "hnorm.weight", {d.hidden});
  b.add(layer.stored + "shared_head.norm.weight", name + "shared_head_norm.weight", {d.hidden});
  const auto add_copy = [&](const std::string& stored, const std::string& gguf, const char* original) {
    if (b.stored(stored)) b.add(stored, gguf, {d.vocab, d.hidden}).drop_if_equal_to = original;
  };
  add_copy(layer.stored + "embed_tokens.weight", name + "embed_tokens.weight", "model.embed_tokens.weight");
  add_copy(layer.stored + "shared_head.head.weight", name + "shared_head_head.weight", "lm_head.weight");
}

ArchRules mtp_rules(const ModelConfig& config, const Dims& d, RuleBuilder& b) {
  if (d.mtp_layers == 0 || !b.stored(model_layer(d.layers).stored + "eh_proj.weight")) {
    throw Error(ErrorKind::kUnsupported,
                "--mtp: the checkpoint has no MTP block (no tensor '" + model_layer(d.layers).stored + "eh_proj.weight')");
  }
  add_ends(config, d, b);
  for (int64_t i = d.layers; i < d.layers + d.mtp_layers; ++i) {
    add_layer(config, d, i, b);
    add_nextn(d, i, b);
  }
  for (int64_t i = 0; i < d.layers; ++i) b.ignore(model_layer(i).stored + "*");
  return b.finish();
}

ArchRules rules(const ModelConfig& config, bool mtp, const HasTensor& stored) {
  RuleBuilder b(kName, stored);
  const Dims d = dims_of(config);
  b.ignore("*.rotary_emb.inv_freq");
  if (mtp) return mtp_rules(config, d, b);
  add_ends(config, d, b);
  for (int64_t i = 0; i < d.layers; ++i) add_layer(config, d, i, b);
  for (int64_t i = d.layers; i < d.layers + d.mtp_layers; ++i) b.ignore(model_layer(i).stored + "*");
  if (b.stored(model_layer(d.layers).stored + "eh_proj.weight")) {
    b.note("the MTP block (" + model_layer(d.layers).stored + "*) is left out; --mtp writes it as a file of its own");
  }
  if (effective_groups(config) > 1 && topk_method(config) == "group_limited_greedy") {
    b.note("llama.cpp ranks expert groups by their two best scores, this model by the best one: some tokens take other experts there");
  }
  return b.finish();
}

}  // namespace

const ArchDescriptor kDeepSeek2 = {
    .gguf_arch = kName,
    .hf_architectures = {"DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"},
    .hf_model_types = {"deepseek_v2", "deepseek_v3", "kimi_k2"},
    .check = check,
    .set_metadata = set_metadata,
    .read_hparams = read_hparams,
    .rules = rules,
};

}  // namespace quern::arch
