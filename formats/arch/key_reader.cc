#include "formats/arch/key_reader.h"

#include <algorithm>
#include <cmath>

#include "formats/arch/descriptor.h"
#include "formats/base/error.h"

// What one family's keys say is read where they are written, by its descriptor's read_hparams; here is what all of them share. Defaults are
// those of llama.cpp's loaders, because files of other converters leave out keys whose default they know.

namespace quern {
namespace arch {
namespace {

constexpr int64_t kMaxCount = 1 << 24;   // of heads, experts, dimensions: products of two stay far inside 64 bits
constexpr int64_t kMaxBlocks = 1 << 16;  // a list of them is made before any tensor can contradict the count

bool is_int_list(const MetaValue& value) {
  return std::holds_alternative<std::vector<int32_t>>(value) || std::holds_alternative<std::vector<uint32_t>>(value);
}

}  // namespace

std::optional<int64_t> KeyReader::find_int(std::string_view suffix) const {
  const std::string name = key(suffix);
  const MetaValue* value = metadata_.find(name);
  if (strict() || value == nullptr || !is_int_list(*value)) return metadata_.find_int(name);
  const std::vector<int64_t> list = *metadata_.find_int_array(name);
  return list.empty() ? std::nullopt : std::optional(list.front());
}

int64_t KeyReader::count(std::string_view suffix) const {
  const std::optional<int64_t> value = find_int(suffix);
  if (!strict()) return in_range(suffix, value.value_or(0), 0);
  return in_range(suffix, value ? *value : metadata_.get_int(key(suffix)), 1);
}

int64_t KeyReader::count_or(std::string_view suffix, int64_t absent) const {
  const std::optional<int64_t> value = find_int(suffix);
  return value ? in_range(suffix, *value, 0) : absent;
}

double KeyReader::number(std::string_view suffix) const {
  return strict() ? finite(suffix, metadata_.get_float(key(suffix))) : number_or(suffix, 0.0);
}

double KeyReader::number_or(std::string_view suffix, double absent) const {
  const std::optional<double> value = metadata_.find_float(key(suffix));
  return value ? finite(suffix, *value) : absent;
}

std::vector<double> KeyReader::per_layer(std::string_view suffix, int64_t n) const {
  const std::string name = key(suffix);
  const MetaValue* value = metadata_.find(name);
  if (value == nullptr) return {};
  std::vector<double> values;
  if (std::holds_alternative<std::vector<float>>(*value)) {
    values = *metadata_.find_float_array(name);
  } else if (std::holds_alternative<float>(*value)) {
    values.assign(static_cast<size_t>(n), *metadata_.find_float(name));
  } else {
    const std::vector<int64_t> integers = *metadata_.find_int_array(name);
    values.assign(integers.begin(), integers.end());
  }
  check(static_cast<int64_t>(values.size()) >= n,
        "'" + name + "' has " + std::to_string(values.size()) + " values, expected " + std::to_string(n));
  for (const double v : values) finite(suffix, v);
  return values;
}

std::vector<int64_t> KeyReader::counts_per_layer(std::string_view suffix, int64_t n, int64_t absent) const {
  const MetaValue* value = metadata_.find(key(suffix));
  if (value == nullptr || !is_int_list(*value)) return std::vector<int64_t>(static_cast<size_t>(n), count_or(suffix, absent));
  std::vector<int64_t> values = *metadata_.find_int_array(key(suffix));
  check(static_cast<int64_t>(values.size()) >= n,
        "'" + key(suffix) + "' has " + std::to_string(values.size()) + " values, expected " + std::to_string(n));
  for (const int64_t v : values) in_range(suffix, v, 0);
  values.resize(static_cast<size_t>(n), absent);
  return values;
}

void KeyReader::check(bool holds, const std::string& problem) const {
  if (strict() && !holds) throw Error(ErrorKind::kFormat, problem);
}

void KeyReader::support(bool holds, const std::string& problem) const {
  if (strict() && !holds) throw Error(ErrorKind::kUnsupported, problem);
}

int64_t KeyReader::in_range(std::string_view suffix, int64_t value, int64_t min) const {
  if (value < min || value > kMaxCount) {
    throw Error(ErrorKind::kFormat, "'" + key(suffix) + "' is " + std::to_string(value) + ", expected " + std::to_string(min) + " to " +
                                        std::to_string(kMaxCount));
  }
  return value;
}

double KeyReader::finite(std::string_view suffix, double value) const {
  check(std::isfinite(value), "'" + key(suffix) + "' is not finite");
  return value;
}

double yarn_gain(double factor, double multiplier) { return factor <= 1.0 ? 1.0 : multiplier * std::log(factor) + 1.0; }

RopeParams read_rope_params(const KeyReader& keys, RopePairing pairing, int64_t n_dims) {
  RopeParams rope{.pairing = pairing, .n_dims = n_dims};
  rope.freq_base = keys.number_or("rope.freq_base", 10000.0);
  const double factor = keys.number_or("rope.scaling.factor", keys.number_or("rope.scale_linear", 1.0));
  const std::string type = keys.text_or("rope.scaling.type", "linear");
  if (type == "none") return rope;
  keys.support(type == "linear" || type == "yarn", "rope scaling '" + type + "' is not supported (linear, yarn)");
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

void read_routing(const KeyReader& keys, Hparams& h) {
  RoutingParams& r = h.routing;
  r.n_experts = keys.count_or("expert_count", 0);
  if (r.n_experts == 0) return;
  r.n_used = keys.count("expert_used_count");
  keys.check(r.n_used <= r.n_experts, "more experts used than exist");
  r.n_groups = std::max<int64_t>(1, keys.count_or("expert_group_count", 1));
  r.n_groups_used = keys.count_or("expert_group_used_count", r.n_groups);
  keys.check(r.n_groups == 1 || (r.n_experts % r.n_groups == 0 && r.n_groups_used >= 1 && r.n_groups_used <= r.n_groups &&
                                 r.n_groups_used * (r.n_experts / r.n_groups) >= r.n_used),
             "expert groups do not fit the expert counts");
  r.normalize = keys.flag_or("expert_weights_norm", false);
  r.scale = keys.number_or("expert_weights_scale", 1.0);
  if (r.scale == 0.0) r.scale = 1.0;
}

Gating read_gating(const KeyReader& keys, Gating absent) {
  const int64_t value = keys.count_or("expert_gating_func", static_cast<int64_t>(absent));
  keys.support(value >= 1 && value <= 4, "expert_gating_func " + std::to_string(value) + " is not supported (1 to 4)");
  return static_cast<Gating>(value);
}

void read_grouped_dims(const KeyReader& keys, Hparams& h) {
  for (const LayerParams& layer : h.layers) {
    keys.check(layer.n_kv_heads >= 1 && h.n_heads % layer.n_kv_heads == 0, "key heads do not divide the query heads");
  }
  h.key_dim = keys.count_or("attention.key_length", h.hidden / std::max<int64_t>(h.n_heads, 1));
  h.value_dim = keys.count_or("attention.value_length", h.key_dim);
}

void read_uniform_layers(const KeyReader& keys, Hparams& h, RopePairing pairing) {
  read_grouped_dims(keys, h);
  h.ropes = {read_rope_params(keys, pairing, keys.count_or("rope.dimension_count", h.key_dim))};
  read_routing(keys, h);
  h.routing.gating = Gating::kSoftmax;
  h.routing.normalize = keys.flag_or("expert_weights_norm", true);
  h.expert_width = keys.count_or("expert_feed_forward_length", h.dense_width);
  for (LayerParams& layer : h.layers) {
    layer.attention_scale = 1.0 / std::sqrt(static_cast<double>(h.key_dim));
    layer.moe = h.routing.n_experts > 0;
  }
}

namespace {

void check_rope(const KeyReader& keys, const RopeParams& rope, int64_t head_dim) {
  keys.check(rope.n_dims >= 2 && rope.n_dims % 2 == 0 && rope.n_dims <= head_dim,
             "rope dimension count " + std::to_string(rope.n_dims) + " does not fit heads of " + std::to_string(head_dim));
  keys.check(rope.freq_base > 1.0 && rope.factor > 0.0 && (!rope.yarn || rope.original_context > 0.0),
             "rope frequency base, factor and original context must be positive");
}

// An architecture without a descriptor, as far as the usual keys describe it.
void read_unknown(const KeyReader& keys, Hparams& h) {
  read_grouped_dims(keys, h);
  read_routing(keys, h);
  h.expert_width = keys.count_or("expert_feed_forward_length", 0);
  h.kv_rank = keys.count_or("attention.kv_lora_rank", 0);
  h.split_kv_b = false;
  for (LayerParams& layer : h.layers) layer.attention = h.kv_rank > 0 ? AttentionKind::kLatent : AttentionKind::kGrouped;
}

std::string known_names() {
  std::string names;
  for (const ArchDescriptor& known : all_archs()) names.append(names.empty() ? "" : ", ").append(known.gguf_arch);
  return names;
}

Hparams read(const KeyReader& keys) {
  Hparams h;
  h.arch = keys.arch();
  const int64_t n_blocks = keys.count("block_count");
  if (n_blocks > kMaxBlocks) throw Error(ErrorKind::kFormat, "block_count is " + std::to_string(n_blocks) + ", expected at most 65536");
  h.n_mtp_layers = keys.count_or("nextn_predict_layers", 0);
  keys.check(h.n_mtp_layers < n_blocks, "all " + std::to_string(n_blocks) + " blocks are MTP blocks");
  h.n_layers = std::max<int64_t>(n_blocks - h.n_mtp_layers, 0);
  h.layers.resize(static_cast<size_t>(n_blocks));
  h.hidden = keys.count("embedding_length");
  h.context_length = keys.count_or("context_length", 0);
  h.norm_eps = keys.number("attention.layer_norm_rms_epsilon");
  h.n_heads = keys.count("attention.head_count");
  h.dense_width = keys.count_or("feed_forward_length", 0);
  h.own_expert_width = keys.has("expert_feed_forward_length");
  const std::vector<int64_t> kv_heads = keys.counts_per_layer("attention.head_count_kv", n_blocks, h.n_heads);
  for (size_t i = 0; i < h.layers.size(); ++i) h.layers[i].n_kv_heads = kv_heads[i];

  const auto known = std::ranges::find(all_archs(), h.arch, &ArchDescriptor::gguf_arch);
  keys.support(known != all_archs().end(), "architecture '" + h.arch + "' is not supported (" + known_names() + ")");
  if (known != all_archs().end()) {
    known->read_hparams(keys, h);
  } else {
    read_unknown(keys, h);
  }
  h.n_shared_experts = keys.count_or("expert_shared_count", 0);
  h.shared_width = keys.count_or("expert_shared_feed_forward_length", h.expert_width * keys.count_or("expert_shared_count", 1));
  for (const RopeParams& rope : h.ropes) check_rope(keys, rope, h.key_dim);
  return h;
}

}  // namespace
}  // namespace arch

Hparams read_hparams(const Metadata& metadata) {
  return arch::read(arch::KeyReader(metadata, metadata.get_string("general.architecture"), arch::KeyReader::Mode::kStrict));
}

Hparams outline_hparams(const Metadata& metadata) {
  const std::string name = metadata.find_string("general.architecture").value_or("");
  return arch::read(arch::KeyReader(metadata, name, arch::KeyReader::Mode::kOutline));
}

}  // namespace quern
