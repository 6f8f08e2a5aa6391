#include "formats/arch/keys.h"

#include <cmath>
#include <numbers>

#include "formats/base/checked.h"
#include "formats/base/error.h"

namespace quern::arch {

namespace {

// Lists of these lengths are made before any tensor can contradict the config, so a bad config must not make them huge. llama.cpp
// takes at most 512 layers; the largest published vocabularies and expert counts are a tenth of these limits, heads a hundredth.
constexpr int64_t kMaxLayers = 512;
constexpr int64_t kMaxVocab = int64_t{1} << 22;
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxHeadDim = 65536;

}  // namespace

int64_t read_expert_count(const ModelConfig& config) { return config.get_int("num_experts", 1, kMaxExperts); }

void refuse(const std::string& reason) { throw Error(ErrorKind::kUnsupported, "config.json: " + reason); }

void KeyWriter::set(std::string_view suffix, MetaValue value) {
  metadata_.set(std::string(arch_).append(".").append(suffix), std::move(value));
}

void KeyWriter::count(std::string_view suffix, int64_t value) { set(suffix, checked_cast<uint32_t>(value, "a metadata count")); }

void KeyWriter::real(std::string_view suffix, double value) { set(suffix, static_cast<float>(value)); }

void KeyWriter::flag(std::string_view suffix, bool value) { set(suffix, value); }

void KeyWriter::text(std::string_view suffix, std::string value) { set(suffix, std::move(value)); }

CommonDims read_dims(const ModelConfig& config, int64_t head_dim_default) {
  CommonDims dims{};
  dims.hidden = config.get_count("hidden_size");
  dims.vocab = config.get_int("vocab_size", 1, kMaxVocab);
  dims.layers = config.get_int("num_hidden_layers", 1, kMaxLayers);
  dims.heads = config.get_count("num_attention_heads");
  dims.kv_heads = config.get_count("num_key_value_heads", dims.heads);
  dims.head_dim = config.find_int("head_dim", 1, kMaxHeadDim).value_or(head_dim_default);
  if (dims.head_dim == 0) {
    if (dims.hidden % dims.heads != 0) {
      throw Error(ErrorKind::kFormat, "config.json: hidden_size " + std::to_string(dims.hidden) +
                                          " is not a multiple of num_attention_heads " + std::to_string(dims.heads) +
                                          ", and there is no head_dim");
    }
    dims.head_dim = dims.hidden / dims.heads;
    if (dims.head_dim > kMaxHeadDim) {
      throw Error(ErrorKind::kFormat, "config.json: hidden_size / num_attention_heads is " + std::to_string(dims.head_dim) +
                                          ", expected at most " + std::to_string(kMaxHeadDim));
    }
  }
  if (dims.heads % dims.kv_heads != 0) {
    throw Error(ErrorKind::kFormat, "config.json: num_attention_heads " + std::to_string(dims.heads) +
                                        " is not a multiple of num_key_value_heads " + std::to_string(dims.kv_heads));
  }
  return dims;
}

namespace {

// The object that holds the scaling parameters, with its dot; empty when there is none.
std::string scaling_prefix(const ModelConfig& config, std::string_view inner) {
  if (config.has_prefix("rope_scaling.")) return "rope_scaling.";  // before rope_parameters, as transformers has it
  std::string wrapped = std::string("rope_parameters.").append(inner).append(".");
  if (config.has_prefix(wrapped)) return wrapped;
  if (config.has_prefix("rope_parameters.")) return "rope_parameters.";
  return {};
}

// Inside the scaling parameters, outside, or in a rope_parameters that a rope_scaling stands in the place of.
double read_theta(const ModelConfig& config, const std::string& prefix, double absent) {
  for (const std::string& key : {prefix + "rope_theta", std::string("rope_theta"), std::string("rope_parameters.rope_theta")}) {
    if (const auto theta = config.find_float(key)) return *theta;
  }
  return absent;
}

double positive(std::optional<double> value, const std::string& key) {
  if (!value) throw Error(ErrorKind::kFormat, "config.json: '" + key + "' is missing");
  if (*value <= 0) throw Error(ErrorKind::kFormat, "config.json: '" + key + "' is " + std::to_string(*value) + ", expected above 0");
  return *value;
}

void check_rope(RopeConfig& rope, const ModelConfig& config, const std::string& prefix) {
  positive(rope.theta, "rope_theta");
  if (rope.type == "default" || rope.type == "dynamic") return;
  positive(rope.factor, prefix + "factor");
  if (rope.type == "linear") return;
  if (!rope.original_context) rope.original_context = config.get_count("max_position_embeddings");
  if (rope.type == "llama3" &&
      positive(rope.high_freq_factor, prefix + "high_freq_factor") <= positive(rope.low_freq_factor, prefix + "low_freq_factor")) {
    throw Error(ErrorKind::kFormat, "config.json: '" + prefix + "high_freq_factor' must exceed low_freq_factor");
  }
}

}  // namespace

RopeConfig read_rope(const ModelConfig& config, double default_theta, std::string_view inner) {
  const std::string prefix = scaling_prefix(config, inner);
  const auto real = [&](std::string_view name) { return prefix.empty() ? std::nullopt : config.find_float(prefix + std::string(name)); };

  RopeConfig rope;
  rope.theta = read_theta(config, prefix, default_theta);
  rope.theta_sliding = config.find_float("rope_parameters.sliding_attention.rope_theta");
  if (prefix.empty()) {
    check_rope(rope, config, prefix);
    return rope;
  }
  rope.type = config.find_string(prefix + "rope_type").value_or(config.find_string(prefix + "type").value_or("default"));
  if (rope.type == "none") rope.type = "default";
  if (rope.type != "default" && rope.type != "linear" && rope.type != "dynamic" && rope.type != "yarn" && rope.type != "llama3") {
    refuse("rope_type '" + printable(rope.type) + "' is not supported (default, linear, dynamic, yarn and llama3 are)");
  }
  rope.factor = real("factor");
  rope.beta_fast = real("beta_fast");
  rope.beta_slow = real("beta_slow");
  rope.attention_factor = real("attention_factor");
  if (!rope.attention_factor) rope.attention_factor = real("attn_factor");
  rope.extrapolation_factor = real("extrapolation_factor");
  rope.mscale = real("mscale");
  rope.mscale_all_dim = real("mscale_all_dim");
  rope.low_freq_factor = real("low_freq_factor");
  rope.high_freq_factor = real("high_freq_factor");
  rope.original_context = config.find_int(prefix + "original_max_position_embeddings", 1, INT32_MAX);
  if (!rope.original_context) rope.original_context = config.find_int("original_max_position_embeddings", 1, INT32_MAX);
  if (config.has(prefix + "truncate")) rope.truncate = config.get_bool(prefix + "truncate", true);
  check_rope(rope, config, prefix);
  return rope;
}

void set_rope_keys(const RopeConfig& rope, KeyWriter& keys) {
  if (rope.type == "linear" || rope.type == "yarn") {
    keys.text("rope.scaling.type", rope.type);
    keys.real("rope.scaling.factor", *rope.factor);
  }
  if (rope.type == "yarn") {
    keys.count("rope.scaling.original_context_length", *rope.original_context);
    if (rope.extrapolation_factor) keys.real("rope.scaling.yarn_ext_factor", *rope.extrapolation_factor);
    if (rope.attention_factor) {
      // Converters write the first name, the loader of llama.cpp reads only the second.
      keys.real("rope.scaling.yarn_attn_factor", *rope.attention_factor);
      keys.real("rope.scaling.attn_factor", *rope.attention_factor);
    }
    if (rope.beta_fast) keys.real("rope.scaling.yarn_beta_fast", *rope.beta_fast);
    if (rope.beta_slow) keys.real("rope.scaling.yarn_beta_slow", *rope.beta_slow);
    if (rope.truncate) keys.flag("rope.scaling.yarn_truncate", *rope.truncate);  // ours: loaders that do not know it round the bounds
  }
  keys.real("rope.freq_base", rope.theta);
  if (rope.theta_sliding) keys.real("rope.freq_base_swa", *rope.theta_sliding);
}

std::vector<float> llama3_rope_factors(const RopeConfig& rope, int64_t head_dim) {
  const double factor = *rope.factor, low = *rope.low_freq_factor, high = *rope.high_freq_factor;
  const double context = static_cast<double>(*rope.original_context);
  std::vector<float> factors;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double wavelength = 2 * std::numbers::pi / frequency;
    double divisor = 1;
    if (wavelength > context / low) {
      divisor = factor;
    } else if (wavelength >= context / high) {
      const double smooth = (context / wavelength - low) / (high - low);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    factors.push_back(static_cast<float>(divisor));
  }
  return factors;
}

void set_common_keys(const ModelConfig& config, const CommonDims& dims, const RopeConfig& rope, const CommonKeys& common, KeyWriter& keys) {
  keys.count("block_count", common.block_count);
  keys.count("context_length", config.get_count("max_position_embeddings"));
  keys.count("embedding_length", dims.hidden);
  if (config.has("intermediate_size")) keys.count("feed_forward_length", config.get_count("intermediate_size"));
  keys.count("attention.head_count", dims.heads);
  keys.count("attention.head_count_kv", common.head_count_kv);
  set_rope_keys(rope, keys);
  keys.real("attention.layer_norm_rms_epsilon", config.get_float("rms_norm_eps", common.default_eps));
  if (config.has("num_experts")) {
    const int64_t experts = read_expert_count(config);
    keys.count("expert_count", experts);
    keys.count("expert_used_count", config.get_int("num_experts_per_tok", 1, experts));
  }
  if (config.has("head_dim")) {
    keys.count("attention.key_length", dims.head_dim);
    keys.count("attention.value_length", dims.head_dim);
  }
}

void refuse_unless_silu(const ModelConfig& config) {
  const std::string act = config.find_string("hidden_act").value_or("silu");
  if (act != "silu" && act != "swish") refuse("hidden_act '" + printable(act) + "' is not supported, expected 'silu'");
}

void refuse_partial_rotary(const ModelConfig& config) {
  for (const char* key : {"partial_rotary_factor", "rope_scaling.partial_rotary_factor", "rope_parameters.partial_rotary_factor"}) {
    const double factor = config.get_float(key, 1.0);
    if (factor != 1.0) refuse(std::string(key) + " is " + std::to_string(factor) + ", expected 1: runtimes rotate whole heads");
  }
}

void refuse_sliding_layers(const ModelConfig& config) {
  for (const std::string& type : config.find_string_array("layer_types").value_or(std::vector<std::string>{})) {
    if (type != "full_attention") refuse("layer_types has '" + printable(type) + "', expected 'full_attention' for every layer");
  }
}

}  // namespace quern::arch
