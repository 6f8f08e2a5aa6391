#include "runtime/blocks/hparams.h"

#include <algorithm>
#include <cmath>

#include "formats/base/error.h"

namespace quern {
namespace {

constexpr int64_t kMaxCount = 1 << 24;  // of heads, layers, experts, dimensions: products of two stay far inside 64 bits

// Keys of one architecture, prefix added, ranges checked.
class Keys {
 public:
  Keys(const Metadata& metadata, std::string arch) : metadata_(metadata), arch_(std::move(arch)) {}

  std::string key(const char* name) const { return arch_ + "." + name; }
  int64_t count(const char* name) const { return in_range(name, metadata_.get_int(key(name)), 1); }
  int64_t count_or(const char* name, int64_t absent) const {
    const auto value = metadata_.find_int(key(name));
    return value ? in_range(name, *value, 0) : absent;
  }
  double number(const char* name) const { return finite(name, metadata_.get_float(key(name))); }
  double number_or(const char* name, double absent) const {
    const auto value = metadata_.find_float(key(name));
    return value ? finite(name, *value) : absent;
  }
  bool flag_or(const char* name, bool absent) const { return metadata_.find_bool(key(name)).value_or(absent); }
  std::string text_or(const char* name, const char* absent) const { return metadata_.find_string(key(name)).value_or(absent); }

  // One value per layer: an array with at least n entries, or one number for all; empty when the key is absent.
  std::vector<double> per_layer(const char* name, int64_t n) const {
    const MetaValue* value = metadata_.find(key(name));
    if (value == nullptr) return {};
    std::vector<double> values;
    if (std::holds_alternative<std::vector<float>>(*value)) {
      values = *metadata_.find_float_array(key(name));
    } else if (std::holds_alternative<float>(*value)) {
      values.assign(static_cast<size_t>(n), *metadata_.find_float(key(name)));
    } else {
      const auto integers = metadata_.find_int_array(key(name));
      values.assign(integers->begin(), integers->end());
    }
    if (static_cast<int64_t>(values.size()) < n) {
      throw Error(ErrorKind::kFormat,
                  "'" + key(name) + "' has " + std::to_string(values.size()) + " values, expected " + std::to_string(n));
    }
    for (const double v : values) finite(name, v);
    return values;
  }

 private:
  int64_t in_range(const char* name, int64_t value, int64_t min) const {
    if (value < min || value > kMaxCount) {
      throw Error(ErrorKind::kFormat, "'" + key(name) + "' is " + std::to_string(value) + ", expected " + std::to_string(min) + " to " +
                                          std::to_string(kMaxCount));
    }
    return value;
  }
  double finite(const char* name, double value) const {
    if (!std::isfinite(value)) throw Error(ErrorKind::kFormat, "'" + key(name) + "' is not finite");
    return value;
  }

  const Metadata& metadata_;
  std::string arch_;
};

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::kUnsupported, what); }

double yarn_gain(double factor, double multiplier) { return factor <= 1.0 ? 1.0 : multiplier * std::log(factor) + 1.0; }

// Scaling keys shared by all architectures. `magnitude` gets the plain-attention rule; MLA and deepseek4 overwrite it.
RopeParams read_rope(const Keys& keys, RopePairing pairing, int64_t n_dims) {
  RopeParams rope{.pairing = pairing, .n_dims = n_dims};
  rope.freq_base = keys.number_or("rope.freq_base", 10000.0);
  const double factor = keys.number_or("rope.scaling.factor", keys.number_or("rope.scale_linear", 1.0));
  const std::string type = keys.text_or("rope.scaling.type", "linear");
  if (type == "none") return rope;
  if (type != "linear" && type != "yarn") refuse("rope scaling '" + type + "' is not supported (linear, yarn)");
  rope.factor = factor == 0.0 ? 1.0 : factor;
  if (type == "linear") return rope;
  rope.yarn = true;
  rope.original_context = keys.number_or("rope.scaling.original_context_length", keys.number("context_length"));
  rope.beta_fast = keys.number_or("rope.scaling.yarn_beta_fast", 32.0);
  rope.beta_slow = keys.number_or("rope.scaling.yarn_beta_slow", 1.0);
  const double explicit_magnitude = keys.number_or("rope.scaling.yarn_attn_factor", keys.number_or("rope.scaling.attn_factor", 0.0));
  rope.magnitude = explicit_magnitude != 0.0 ? explicit_magnitude : yarn_gain(rope.factor, 0.1);
  return rope;
}

void check_rope(const RopeParams& rope, int64_t head_dim) {
  if (rope.n_dims < 2 || rope.n_dims % 2 != 0 || rope.n_dims > head_dim) {
    throw Error(ErrorKind::kFormat,
                "rope dimension count " + std::to_string(rope.n_dims) + " does not fit heads of " + std::to_string(head_dim));
  }
  if (!(rope.freq_base > 1.0) || !(rope.factor > 0.0) || (rope.yarn && !(rope.original_context > 0.0))) {
    throw Error(ErrorKind::kFormat, "rope frequency base, factor and original context must be positive");
  }
}

void read_routing(const Keys& keys, Hparams& h) {
  RoutingParams& r = h.routing;
  r.n_experts = keys.count_or("expert_count", 0);
  if (r.n_experts == 0) return;
  r.n_used = keys.count("expert_used_count");
  if (r.n_used > r.n_experts) throw Error(ErrorKind::kFormat, "more experts used than exist");
  r.n_groups = std::max<int64_t>(1, keys.count_or("expert_group_count", 1));
  r.n_groups_used = keys.count_or("expert_group_used_count", r.n_groups);
  if (r.n_groups > 1 && (r.n_experts % r.n_groups != 0 || r.n_groups_used < 1 || r.n_groups_used > r.n_groups ||
                         r.n_groups_used * (r.n_experts / r.n_groups) < r.n_used)) {
    throw Error(ErrorKind::kFormat, "expert groups do not fit the expert counts");
  }
  r.normalize = keys.flag_or("expert_weights_norm", false);
  r.scale = keys.number_or("expert_weights_scale", 1.0);
  if (r.scale == 0.0) r.scale = 1.0;
}

Gating read_gating(const Keys& keys, Gating absent) {
  const int64_t value = keys.count_or("expert_gating_func", static_cast<int64_t>(absent));
  if (value < 1 || value > 4) refuse("expert_gating_func " + std::to_string(value) + " is not supported (1 to 4)");
  return static_cast<Gating>(value);
}

void read_grouped_dims(const Keys& keys, Hparams& h) {
  h.n_kv_heads = keys.count_or("attention.head_count_kv", h.n_heads);
  if (h.n_kv_heads < 1 || h.n_heads % h.n_kv_heads != 0) throw Error(ErrorKind::kFormat, "key heads do not divide the query heads");
  h.key_dim = keys.count_or("attention.key_length", h.hidden / h.n_heads);
  h.value_dim = keys.count_or("attention.value_length", h.key_dim);
}

// llama, qwen2, qwen3, qwen3moe: one kind of layer.
void read_llama_like(const Keys& keys, Hparams& h, RopePairing pairing) {
  read_grouped_dims(keys, h);
  h.ropes = {read_rope(keys, pairing, keys.count_or("rope.dimension_count", h.key_dim))};
  read_routing(keys, h);
  h.routing.gating = Gating::kSoftmax;
  h.routing.normalize = keys.flag_or("expert_weights_norm", true);
  h.expert_width = keys.count_or("expert_feed_forward_length", h.dense_width);
  for (LayerParams& layer : h.layers) {
    layer.attention_scale = 1.0 / std::sqrt(static_cast<double>(h.key_dim));
    layer.moe = h.routing.n_experts > 0;
  }
}

void read_gpt_oss(const Keys& keys, Hparams& h) {
  read_llama_like(keys, h, RopePairing::kHalves);
  h.ropes[0].truncate = keys.flag_or("rope.scaling.yarn_truncate", false);
  h.routing.gating = Gating::kSoftmaxOfSelected;
  const int64_t window = keys.count("attention.sliding_window");
  const int64_t period = std::max<int64_t>(1, keys.count_or("attention.sliding_window_pattern", 2));
  const double limit = keys.number_or("swiglu_limit", 7.0);
  for (size_t i = 0; i < h.layers.size(); ++i) {
    LayerParams& layer = h.layers[i];
    layer.window = (static_cast<int64_t>(i) + 1) % period != 0 ? window : 0;
    layer.activation = Activation::kGptOss;
    layer.clamp_experts = limit;
  }
}

// Attention of DeepSeek V2 and V3: new files describe it as multi-query attention over the latent and name the true head sizes
// *_mla; older ones name the head sizes directly and store kv_b whole.
void read_deepseek2(const Keys& keys, Hparams& h) {
  h.kv_rank = keys.count("attention.kv_lora_rank");
  h.q_rank = keys.count_or("attention.q_lora_rank", 0);
  h.n_kv_heads = h.n_heads;
  h.key_dim = keys.count_or("attention.key_length_mla", 0);
  h.split_kv_b = h.key_dim != 0;
  if (h.split_kv_b) {
    h.value_dim = keys.count("attention.value_length_mla");
  } else {
    h.key_dim = keys.count("attention.key_length");
    h.value_dim = keys.count("attention.value_length");
  }
  RopeParams rope = read_rope(keys, RopePairing::kAdjacent, keys.count("rope.dimension_count"));
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

void read_deepseek4(const Keys& keys, Hparams& h) {
  read_grouped_dims(keys, h);
  if (h.n_kv_heads != 1 || h.value_dim != h.key_dim) refuse("deepseek4 attention has one key head that is also the value");
  h.q_rank = keys.count("attention.q_lora_rank");
  h.n_output_groups = keys.count("attention.output_group_count");
  h.output_rank = keys.count("attention.output_lora_rank");
  if (h.n_heads % h.n_output_groups != 0) throw Error(ErrorKind::kFormat, "output groups do not divide the heads");
  h.n_indexer_heads = keys.count("attention.indexer.head_count");
  h.indexer_dim = keys.count("attention.indexer.key_length");
  h.indexer_top_k = keys.count("attention.indexer.top_k");
  h.n_streams = keys.count("hyper_connection.count");
  if (h.n_streams > 16) refuse("more than 16 residual streams");
  h.sinkhorn_iterations = keys.count("hyper_connection.sinkhorn_iterations");
  h.hyper_eps = keys.number("hyper_connection.epsilon");

  // Layers with compression rotate everything by the long-context table, the others by the plain one; neither has a magnitude.
  RopeParams scaled = read_rope(keys, RopePairing::kAdjacent, keys.count_or("rope.dimension_count", h.key_dim));
  RopeParams plain{.pairing = RopePairing::kAdjacent, .n_dims = scaled.n_dims, .freq_base = scaled.freq_base};
  scaled.freq_base = keys.number("attention.compress_rope_freq_base");
  scaled.magnitude = 1.0;
  h.ropes = {plain, scaled};

  read_routing(keys, h);
  h.routing.gating = read_gating(keys, Gating::kSqrtSoftplus);
  h.expert_width = keys.count("expert_feed_forward_length");
  const auto n = static_cast<int64_t>(h.layers.size());
  std::vector<double> ratios = keys.per_layer("attention.compress_ratios", h.n_layers);
  if (ratios.empty()) throw Error(ErrorKind::kFormat, "'" + keys.key("attention.compress_ratios") + "' is missing");
  ratios.resize(static_cast<size_t>(std::max<int64_t>(n, static_cast<int64_t>(ratios.size()))), 0.0);
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
    const bool mtp = static_cast<int64_t>(i) >= h.n_layers;
    layer.compress_ratio = mtp ? 0 : static_cast<int64_t>(ratios[i]);
    if (layer.compress_ratio != 0 && layer.compress_ratio != 4 && layer.compress_ratio != 128) {
      refuse("compression ratio " + std::to_string(layer.compress_ratio) + " of layer " + std::to_string(i) +
             " is not supported (0, 4, 128)");
    }
    layer.rope = layer.compress_ratio != 0 ? 1 : 0;
    layer.attention_scale = 1.0 / std::sqrt(static_cast<double>(h.key_dim));
    layer.moe = true;
    layer.hash_routing = static_cast<int64_t>(i) < n_hash;
    layer.clamp_experts = of_layer(clamp, i);
    layer.clamp_shared = of_layer(clamp_shared.empty() ? clamp : clamp_shared, i);
  }
}

}  // namespace

Hparams read_hparams(const Metadata& metadata) {
  Hparams h;
  h.arch = metadata.get_string("general.architecture");
  const Keys keys(metadata, h.arch);
  const int64_t n_blocks = keys.count("block_count");
  h.n_mtp_layers = keys.count_or("nextn_predict_layers", 0);
  if (h.n_mtp_layers >= n_blocks) throw Error(ErrorKind::kFormat, "all " + std::to_string(n_blocks) + " blocks are MTP blocks");
  h.n_layers = n_blocks - h.n_mtp_layers;
  h.layers.resize(static_cast<size_t>(n_blocks));
  h.hidden = keys.count("embedding_length");
  h.context_length = keys.count_or("context_length", 0);
  h.norm_eps = keys.number("attention.layer_norm_rms_epsilon");
  h.n_heads = keys.count("attention.head_count");
  h.dense_width = keys.count_or("feed_forward_length", 0);

  if (h.arch == "llama") {
    read_llama_like(keys, h, RopePairing::kAdjacent);
  } else if (h.arch == "qwen2" || h.arch == "qwen3" || h.arch == "qwen3moe") {
    read_llama_like(keys, h, RopePairing::kHalves);
  } else if (h.arch == "deepseek2") {
    read_deepseek2(keys, h);
  } else if (h.arch == "deepseek4") {
    read_deepseek4(keys, h);
  } else if (h.arch == "gpt-oss") {
    read_gpt_oss(keys, h);
  } else {
    refuse("architecture '" + h.arch + "' is not supported (llama, qwen2, qwen3, qwen3moe, deepseek2, deepseek4, gpt-oss)");
  }
  h.shared_width = keys.count_or("expert_shared_feed_forward_length", h.expert_width * keys.count_or("expert_shared_count", 1));
  for (const RopeParams& rope : h.ropes) check_rope(rope, h.key_dim);
  return h;
}

}  // namespace quern
