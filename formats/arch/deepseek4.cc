#include <algorithm>
#include <cmath>

#include "formats/arch/families.h"
#include "formats/arch/key_reader.h"
#include "formats/arch/keys.h"
#include "formats/arch/rule_builder.h"
#include "formats/arch/stems.h"
#include "formats/base/error.h"

// DeepSeek-V4 Flash and Pro, their Base versions, and the main model of the DSpark releases (0731 ...). Every layer attends within a
// window; compress_ratios says which layers also attend to compressed entries (4: overlapping, chosen by an indexer; 128: all of
// them). The first num_hash_layers route tokens by a table instead of scores. Official names only: `layers.N.attn.wq_a` and so on.
// GGUF names and keys: llama.cpp conversion/deepseek.py (DeepseekV4Model), src/models/deepseek4.cpp.

namespace quern::arch {

namespace {

constexpr std::string_view kName = "deepseek4";
constexpr int64_t kOverlapRatio = 4;  // entries overlap, so they are twice as wide, and have an indexer

struct Dims : CommonDims {
  int64_t q_rank;
  int64_t out_groups;
  int64_t out_rank;
  int64_t experts;
  int64_t experts_used;
  int64_t expert_width;
  int64_t shared_experts;
  int64_t hash_layers;
  int64_t streams;  // hc_mult: residual streams
  int64_t index_heads;
  int64_t index_dim;
  int64_t mtp_layers;
  std::vector<int64_t> ratios;  // as the config has them: at least one per layer
};

Dims dims_of(const ModelConfig& config) {
  Dims d{};
  static_cast<CommonDims&>(d) = read_dims(config, 1);
  d.head_dim = config.get_count("head_dim");
  d.q_rank = config.get_count("q_lora_rank");
  d.out_groups = config.get_count("o_groups");
  d.out_rank = config.get_count("o_lora_rank");
  d.experts = read_expert_count(config);
  d.experts_used = config.get_int("num_experts_per_tok", 1, d.experts);
  d.expert_width = config.get_count("moe_intermediate_size");
  d.shared_experts = config.get_count("n_shared_experts", 1);
  d.hash_layers = config.get_int("num_hash_layers", 0, d.layers);
  d.streams = config.get_int("hc_mult", 1, 64);
  d.index_heads = config.get_count("index_n_heads");
  d.index_dim = config.get_count("index_head_dim");
  d.mtp_layers = config.find_int("num_nextn_predict_layers", 0, 64).value_or(0);
  const auto ratios = config.find_int_array("compress_ratios", 0, INT32_MAX);
  if (!ratios || static_cast<int64_t>(ratios->size()) < d.layers) {
    throw Error(ErrorKind::kFormat, "config.json: 'compress_ratios' has " + std::to_string(ratios ? ratios->size() : 0) +
                                        " entries, expected one for each of " + std::to_string(d.layers) + " layers");
  }
  d.ratios = *ratios;
  if (d.heads * d.head_dim % d.out_groups != 0) {
    throw Error(ErrorKind::kFormat, "config.json: o_groups " + std::to_string(d.out_groups) + " does not divide the attention width " +
                                        std::to_string(d.heads * d.head_dim));
  }
  return d;
}

bool has_dspark(const ModelConfig& config) { return config.has_prefix("dspark_"); }

// Of the compressed layers, the only ones that are scaled.
RopeConfig compressed_rope(const ModelConfig& config) { return read_rope(config, 1e4, "compress"); }

void refuse_other_value(const ModelConfig& config, const char* key, std::string_view expected) {
  const std::string value = config.find_string(key).value_or(std::string(expected));
  if (value != expected) refuse(std::string(key) + " is '" + printable(value) + "', expected '" + std::string(expected) + "'");
}

void check(const ModelConfig& config) {
  refuse_other_value(config, "model_type", "deepseek_v4");
  refuse_other_value(config, "scoring_func", "sqrtsoftplus");
  refuse_other_value(config, "topk_method", "noaux_tc");
  refuse_unless_silu(config);
  if (config.get_bool("attention_bias", false)) refuse("attention_bias is true; GGUF architecture deepseek4 has no attention biases");
  if (config.find_int("n_group", 0, INT32_MAX).value_or(0) > 1) refuse("n_group is set; GGUF architecture deepseek4 has no expert groups");
  const Dims d = dims_of(config);
  if (d.kv_heads != 1) refuse("num_key_value_heads is " + std::to_string(d.kv_heads) + ", GGUF architecture deepseek4 has one shared key");
  for (int64_t ratio : d.ratios) {
    if (ratio != 0 && ratio != 4 && ratio != 128) refuse("compress_ratios has " + std::to_string(ratio) + ", known are 0, 4 and 128");
  }
  if (const std::string type = compressed_rope(config).type; type != "yarn" && type != "default") {
    refuse("rope_type '" + type + "' is not what DeepSeek-V4 uses (yarn)");
  }
}

void set_attention_keys(const ModelConfig& config, const Dims& d, int64_t blocks, KeyWriter& keys) {
  keys.count("attention.key_length", d.head_dim);
  keys.count("attention.value_length", d.head_dim);
  keys.count("rope.dimension_count", config.get_count("qk_rope_head_dim"));
  keys.count("attention.q_lora_rank", d.q_rank);
  keys.count("attention.sliding_window", config.get_count("sliding_window"));
  keys.count("attention.indexer.head_count", d.index_heads);
  keys.count("attention.indexer.key_length", d.index_dim);
  keys.count("attention.indexer.top_k", config.get_count("index_topk"));
  keys.count("attention.output_group_count", d.out_groups);
  keys.count("attention.output_lora_rank", d.out_rank);
  std::vector<int32_t> ratios(d.ratios.begin(), d.ratios.end());  // values are 0, 4 or 128 once check() has passed
  ratios.resize(std::max(ratios.size(), static_cast<size_t>(blocks)));
  keys.set("attention.compress_ratios", std::move(ratios));
  const auto theta = config.find_float("compress_rope_theta");
  keys.real("attention.compress_rope_freq_base", theta ? *theta : config.get_float("rope_parameters.compress.rope_theta"));
}

void set_expert_keys(const ModelConfig& config, const Dims& d, int64_t blocks, KeyWriter& keys) {
  keys.count("expert_feed_forward_length", d.expert_width);
  keys.count("expert_shared_count", d.shared_experts);
  keys.real("expert_weights_scale", config.get_float("routed_scaling_factor"));
  keys.flag("expert_weights_norm", config.get_bool("norm_topk_prob", true));
  keys.count("expert_gating_func", 4);
  const std::vector<float> clamp(static_cast<size_t>(blocks), static_cast<float>(config.get_float("swiglu_limit")));
  keys.set("swiglu_clamp_exp", clamp);
  keys.set("swiglu_clamp_shexp", clamp);
}

void set_metadata(const ModelConfig& config, bool mtp, Metadata& metadata) {
  KeyWriter keys(kName, metadata);
  const Dims d = dims_of(config);
  const int64_t blocks = d.layers + (mtp ? d.mtp_layers : 0);
  RopeConfig rope = compressed_rope(config);
  rope.theta = read_rope(config, 1e4, "main").theta;  // rope.freq_base is that of the layers without compression
  set_common_keys(config, d, rope, {blocks, d.kv_heads, 1e-6}, keys);
  keys.count("embedding_length_out", d.streams * d.hidden);
  set_attention_keys(config, d, blocks, keys);
  set_expert_keys(config, d, blocks, keys);
  keys.count("hyper_connection.count", d.streams);
  keys.count("hyper_connection.sinkhorn_iterations", config.get_count("hc_sinkhorn_iters"));
  keys.real("hyper_connection.epsilon", config.get_float("hc_eps"));
  keys.count("hash_layer_count", d.hash_layers);
  keys.count("vocab_size", d.vocab);
  if (mtp) keys.count("nextn_predict_layers", d.mtp_layers);
}

void read_hparams(const KeyReader& keys, Hparams& h) {
  read_grouped_dims(keys, h);
  const bool one_head = std::ranges::all_of(h.layers, [](const LayerParams& layer) { return layer.n_kv_heads == 1; });
  keys.support(one_head && h.value_dim == h.key_dim, "deepseek4 attention has one key head that is also the value");
  h.q_rank = keys.count("attention.q_lora_rank");
  h.n_output_groups = keys.count("attention.output_group_count");
  h.output_rank = keys.count("attention.output_lora_rank");
  keys.check(h.n_output_groups > 0 && h.n_heads % h.n_output_groups == 0, "output groups do not divide the heads");
  h.n_indexer_heads = keys.count("attention.indexer.head_count");
  h.indexer_dim = keys.count("attention.indexer.key_length");
  h.indexer_top_k = keys.count("attention.indexer.top_k");
  h.n_streams = keys.count("hyper_connection.count");
  keys.support(h.n_streams <= 16, "more than 16 residual streams");
  h.sinkhorn_iterations = keys.count("hyper_connection.sinkhorn_iterations");
  h.hyper_eps = keys.number("hyper_connection.epsilon");

  // Layers with compression rotate everything by the long-context table, the others by the plain one; neither has a magnitude.
  RopeParams scaled = read_rope_params(keys, RopePairing::kAdjacent, keys.count_or("rope.dimension_count", h.key_dim));
  RopeParams plain{.pairing = RopePairing::kAdjacent, .n_dims = scaled.n_dims, .freq_base = scaled.freq_base};
  scaled.freq_base = keys.number("attention.compress_rope_freq_base");
  scaled.magnitude = 1.0;
  h.ropes = {plain, scaled};

  read_routing(keys, h);
  h.routing.gating = read_gating(keys, Gating::kSqrtSoftplus);
  h.expert_width = keys.count("expert_feed_forward_length");
  keys.check(keys.has("attention.compress_ratios"), "'deepseek4.attention.compress_ratios' is missing");
  std::vector<int64_t> ratios = keys.counts_per_layer("attention.compress_ratios", h.n_layers, 0);
  ratios.resize(h.layers.size());  // MTP blocks have no compression
  const std::vector<double> clamp = keys.per_layer("swiglu_clamp_exp", h.n_layers);
  const std::vector<double> clamp_shared = keys.per_layer("swiglu_clamp_shexp", h.n_layers);
  const int64_t n_hash = keys.count_or("hash_layer_count", 0);
  const auto of_layer = [](const std::vector<double>& values, size_t i) {
    return values.empty() ? 0.0 : values[std::min(i, values.size() - 1)];
  };
  for (size_t i = 0; i < h.layers.size(); ++i) {
    LayerParams& layer = h.layers[i];
    layer.attention = AttentionKind::kCompressed;
    layer.window = keys.count("attention.sliding_window");
    layer.compress_ratio = ratios[i];
    keys.support(ratios[i] == 0 || ratios[i] == kOverlapRatio || ratios[i] == 128,
                 "compression ratio " + std::to_string(ratios[i]) + " of layer " + std::to_string(i) + " is not supported (0, 4, 128)");
    layer.rope = ratios[i] != 0 ? 1 : 0;
    layer.attention_scale = 1.0 / std::sqrt(static_cast<double>(h.key_dim));
    layer.moe = true;
    layer.hash_routing = static_cast<int64_t>(i) < n_hash;
    layer.clamp_experts = of_layer(clamp, i);
    layer.clamp_shared = of_layer(clamp_shared.empty() ? clamp : clamp_shared, i);
  }
}

// One of the two hyper-connections of a block: mixing matrix, its bias, and three gains.
void add_hyper_connection(const Dims& d, const std::string& stored, const std::string& name, RuleBuilder& b) {
  const int64_t mixes = (2 + d.streams) * d.streams;  // what to read, what to write, and how streams mix
  b.add(stored + "_fn", name + "_fn.weight", {mixes, d.streams * d.hidden});
  b.add(stored + "_base", name + "_base.weight", {mixes});
  b.add(stored + "_scale", name + "_scale.weight", {3});
}

void add_hyper_head(const Dims& d, const std::string& stored, RuleBuilder& b) {
  b.add(stored + "hc_head_fn", "output_hc_fn.weight", {d.streams, d.streams * d.hidden});
  b.add(stored + "hc_head_base", "output_hc_base.weight", {d.streams});
  b.add(stored + "hc_head_scale", "output_hc_scale.weight", {1});
}

void add_compressor(const Dims& d, const std::string& stored, const std::string& name, int64_t ratio, int64_t head_dim, RuleBuilder& b) {
  const int64_t width = ratio == kOverlapRatio ? 2 * head_dim : head_dim;
  b.add(stored + "ape", name + "_ape.weight", {ratio, width});
  b.add(stored + "wkv.weight", name + "_kv.weight", {width, d.hidden});
  b.add(stored + "wgate.weight", name + "_gate.weight", {width, d.hidden});
  b.add(stored + "norm.weight", name + "_norm.weight", {head_dim});
}

void add_attention(const Dims& d, const std::string& stored, const std::string& blk, int64_t ratio, RuleBuilder& b) {
  const int64_t width = d.heads * d.head_dim;
  b.add(stored + "attn_sink", blk + "attn_sinks.weight", {d.heads});
  b.add(stored + "wq_a.weight", blk + "attn_q_a.weight", {d.q_rank, d.hidden});
  b.add(stored + "q_norm.weight", blk + "attn_q_a_norm.weight", {d.q_rank});
  b.add(stored + "wq_b.weight", blk + "attn_q_b.weight", {width, d.q_rank});
  b.add(stored + "wkv.weight", blk + "attn_kv.weight", {d.head_dim, d.hidden});
  b.add(stored + "kv_norm.weight", blk + "attn_kv_a_norm.weight", {d.head_dim});
  b.add(stored + "wo_a.weight", blk + "attn_output_a.weight", {d.out_groups * d.out_rank, width / d.out_groups});
  b.add(stored + "wo_b.weight", blk + "attn_output_b.weight", {d.hidden, d.out_groups * d.out_rank});
  if (ratio == 0) return;
  add_compressor(d, stored + "compressor.", blk + "attn_compressor", ratio, d.head_dim, b);
  if (ratio != kOverlapRatio) return;
  b.add(stored + "indexer.wq_b.weight", blk + "indexer.attn_q_b.weight", {d.index_heads * d.index_dim, d.q_rank});
  b.add(stored + "indexer.weights_proj.weight", blk + "indexer.proj.weight", {d.index_heads, d.hidden});
  add_compressor(d, stored + "indexer.compressor.", blk + "indexer_compressor", ratio, d.index_dim, b);
}

void add_ffn(const Dims& d, const std::string& stored, const std::string& blk, bool hashed, RuleBuilder& b) {
  b.add(stored + "gate.weight", blk + "ffn_gate_inp.weight", {d.experts, d.hidden});
  if (hashed) {
    b.add(stored + "gate.tid2eid", blk + "ffn_gate_tid2eid.weight", {d.vocab, d.experts_used});
  } else {
    b.add(stored + "gate.bias", blk + "exp_probs_b.bias", {d.experts});
  }
  add_experts(stored + "experts.", blk, {"w1", "w3", "w2"}, d.experts, d.hidden, d.expert_width, b);
  const int64_t shared = d.expert_width * d.shared_experts;
  b.add(stored + "shared_experts.w1.weight", blk + "ffn_gate_shexp.weight", {shared, d.hidden});
  b.add(stored + "shared_experts.w3.weight", blk + "ffn_up_shexp.weight", {shared, d.hidden});
  b.add(stored + "shared_experts.w2.weight", blk + "ffn_down_shexp.weight", {d.hidden, shared});
}

// stored: "layers.3." or "mtp.0."; block: the number in GGUF.
void add_layer(const Dims& d, const std::string& stored, int64_t block, RuleBuilder& b) {
  const std::string blk = block_name(block, "");
  const auto index = static_cast<size_t>(block);
  b.add(stored + "attn_norm.weight", blk + "attn_norm.weight", {d.hidden});
  b.add(stored + "ffn_norm.weight", blk + "ffn_norm.weight", {d.hidden});
  add_hyper_connection(d, stored + "hc_attn", blk + "hc_attn", b);
  add_hyper_connection(d, stored + "hc_ffn", blk + "hc_ffn", b);
  add_attention(d, stored + "attn.", blk, index < d.ratios.size() ? d.ratios[index] : 0, b);
  add_ffn(d, stored + "ffn.", blk, block < d.hash_layers, b);
}

void add_ends(const Dims& d, RuleBuilder& b) {
  b.add("embed.weight", "token_embd.weight", {d.vocab, d.hidden});
  b.add("norm.weight", "output_norm.weight", {d.hidden});
  b.add("head.weight", "output.weight", {d.vocab, d.hidden});
}

// A file of its own: the block's output head takes the root names output_hc_*, so one file cannot hold both models.
ArchRules mtp_rules(const ModelConfig& config, const Dims& d, RuleBuilder& b) {
  if (has_dspark(config) || b.stored("mtp.0.main_proj.weight")) {
    throw Error(ErrorKind::kUnsupported,
                "--mtp: the mtp.* tensors are a DSpark drafter (mtp.0.main_proj), not an MTP block; only the main model can be converted");
  }
  if (d.mtp_layers != 1 || !b.stored("mtp.0.e_proj.weight")) {
    throw Error(ErrorKind::kUnsupported, "--mtp: one MTP block with 'mtp.0.e_proj.weight' is expected; the checkpoint has " +
                                             std::string(d.mtp_layers > 1 ? "more" : "none"));
  }
  add_ends(d, b);
  add_hyper_head(d, "mtp.0.", b);
  add_layer(d, "mtp.0.", d.layers, b);
  const std::string name = block_name(d.layers, "nextn.");
  b.add("mtp.0.e_proj.weight|mtp.0.h_proj.weight", name + "eh_proj.weight", {d.hidden, 2 * d.hidden}, Transform::kConcatColumns);
  b.add("mtp.0.enorm.weight", name + "enorm.weight", {d.hidden});
  b.add("mtp.0.hnorm.weight", name + "hnorm.weight", {d.hidden});
  b.add("mtp.0.norm.weight", name + "shared_head_norm.weight", {d.hidden});
  b.ignore("layers.*");
  b.ignore("hc_head_*");
  return b.finish();
}

ArchRules rules(const ModelConfig& config, bool mtp, const HasTensor& stored) {
  RuleBuilder b(kName, stored);
  if (b.stored("model.embed_tokens.weight") || b.stored("model.layers.0.self_attn.q_a_proj.weight")) {
    throw Error(ErrorKind::kUnsupported,
                "tensor names are those of a transformers re-export (model.layers.N.self_attn ...); use the official checkpoint "
                "(layers.N.attn ...)");
  }
  const Dims d = dims_of(config);
  if (mtp) return mtp_rules(config, d, b);
  add_ends(d, b);
  add_hyper_head(d, "", b);
  for (int64_t i = 0; i < d.layers; ++i) add_layer(d, "layers." + std::to_string(i) + ".", i, b);
  b.ignore("mtp.*");
  if (has_dspark(config) || b.stored("mtp.0.main_proj.weight")) {
    b.note("the DSpark drafter (mtp.*) is left out");
  } else if (b.stored("mtp.0.e_proj.weight")) {
    b.note("the MTP block (mtp.0.*) is left out; --mtp writes it as a file of its own");
  }
  if (d.streams != 4) b.note("hc_mult is " + std::to_string(d.streams) + "; llama.cpp runs models with 4 residual streams only");
  return b.finish();
}

}  // namespace

const ArchDescriptor kDeepSeek4 = {
    .gguf_arch = kName,
    .hf_architectures = {"DeepseekV4ForCausalLM"},
    .hf_model_types = {"deepseek_v4"},
    .check = check,
    .set_metadata = set_metadata,
    .read_hparams = read_hparams,
    .rules = rules,
};

}  // namespace quern::arch
