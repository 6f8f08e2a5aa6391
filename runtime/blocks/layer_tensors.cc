#include "runtime/blocks/layer_tensors.h"

#include <functional>

#include "formats/base/error.h"

namespace quern {
namespace {

using Has = std::function<bool(std::string_view)>;

class List {
 public:
  void matrix(std::string name, int64_t n_rows, int64_t n_columns) { add(std::move(name), {n_rows, n_columns}, Holding::kMatrix, false); }
  void vector(std::string name, int64_t n) { add(std::move(name), {n}, Holding::kValues, false); }
  void optional_vector(std::string name, int64_t n) { add(std::move(name), {n}, Holding::kValues, true); }
  void add(std::string name, Shape shape, Holding holding, bool optional) {
    tensors.push_back({std::move(name), shape, holding, optional});
  }

  std::vector<LayerTensor> tensors;
};

void grouped_attention(const Hparams& h, const LayerParams& layer, List& list) {
  const int64_t q_rows = h.n_heads * h.key_dim, k_rows = layer.n_kv_heads * h.key_dim, v_rows = layer.n_kv_heads * h.value_dim;
  list.matrix("attn_q.weight", q_rows, h.hidden);
  list.matrix("attn_k.weight", k_rows, h.hidden);
  list.matrix("attn_v.weight", v_rows, h.hidden);
  list.matrix("attn_output.weight", h.hidden, h.n_heads * h.value_dim);
  list.optional_vector("attn_q.bias", q_rows);
  list.optional_vector("attn_k.bias", k_rows);
  list.optional_vector("attn_v.bias", v_rows);
  list.optional_vector("attn_output.bias", h.hidden);
  list.optional_vector("attn_q_norm.weight", h.key_dim);
  list.optional_vector("attn_k_norm.weight", h.key_dim);
  list.optional_vector("attn_sinks.weight", h.n_heads);
}

void latent_attention(const Hparams& h, List& list) {
  const int64_t rope_dim = h.ropes[0].n_dims, nope_dim = h.key_dim - rope_dim;
  if (h.q_rank > 0) {
    list.matrix("attn_q_a.weight", h.q_rank, h.hidden);
    list.vector("attn_q_a_norm.weight", h.q_rank);
    list.matrix("attn_q_b.weight", h.n_heads * h.key_dim, h.q_rank);
  } else {
    list.matrix("attn_q.weight", h.n_heads * h.key_dim, h.hidden);
  }
  list.matrix("attn_kv_a_mqa.weight", h.kv_rank + rope_dim, h.hidden);
  list.vector("attn_kv_a_norm.weight", h.kv_rank);
  if (h.split_kv_b) {
    list.add("attn_k_b.weight", {h.n_heads, h.kv_rank, nope_dim}, Holding::kValues, false);
    list.add("attn_v_b.weight", {h.n_heads, h.value_dim, h.kv_rank}, Holding::kValues, false);
  } else {
    list.add("attn_kv_b.weight", {h.n_heads * (nope_dim + h.value_dim), h.kv_rank}, Holding::kValues, false);
  }
  list.matrix("attn_output.weight", h.hidden, h.n_heads * h.value_dim);
}

void compressor(const std::string& prefix, int64_t ratio, int64_t width, const Hparams& h, List& list) {
  const int64_t columns = ratio == 4 ? 2 * width : width;
  list.add(prefix + "_ape.weight", {ratio, columns}, Holding::kValues, false);
  list.matrix(prefix + "_kv.weight", columns, h.hidden);
  list.matrix(prefix + "_gate.weight", columns, h.hidden);
  list.vector(prefix + "_norm.weight", width);
}

void compressed_attention(const Hparams& h, const LayerParams& layer, List& list) {
  list.matrix("attn_q_a.weight", h.q_rank, h.hidden);
  list.vector("attn_q_a_norm.weight", h.q_rank);
  list.matrix("attn_q_b.weight", h.n_heads * h.key_dim, h.q_rank);
  list.matrix("attn_kv.weight", h.key_dim, h.hidden);
  list.vector("attn_kv_a_norm.weight", h.key_dim);
  list.vector("attn_sinks.weight", h.n_heads);
  list.matrix("attn_output_a.weight", h.n_output_groups * h.output_rank, h.n_heads / h.n_output_groups * h.key_dim);
  list.matrix("attn_output_b.weight", h.hidden, h.n_output_groups * h.output_rank);
  if (layer.compress_ratio == 0) return;
  compressor("attn_compressor", layer.compress_ratio, h.key_dim, h, list);
  if (layer.compress_ratio != 4) return;
  list.matrix("indexer.attn_q_b.weight", h.n_indexer_heads * h.indexer_dim, h.q_rank);
  list.matrix("indexer.proj.weight", h.n_indexer_heads, h.hidden);
  compressor("indexer_compressor", layer.compress_ratio, h.indexer_dim, h, list);
}

void hyper_connection(const std::string& prefix, const Hparams& h, List& list) {
  const int64_t n_mixes = (2 + h.n_streams) * h.n_streams;
  list.matrix(prefix + "_fn.weight", n_mixes, h.state_width());
  list.vector(prefix + "_base.weight", n_mixes);
  list.vector(prefix + "_scale.weight", 3);
}

void ffn(const std::string& suffix, int64_t width, const Hparams& h, List& list) {
  list.matrix("ffn_gate" + suffix + ".weight", width, h.hidden);
  list.matrix("ffn_up" + suffix + ".weight", width, h.hidden);
  list.matrix("ffn_down" + suffix + ".weight", h.hidden, width);
}

void moe(const Hparams& h, const LayerParams& layer, const Has& has, List& list) {
  const int64_t n_experts = h.routing.n_experts;
  list.matrix("ffn_gate_inp.weight", n_experts, h.hidden);
  list.optional_vector("ffn_gate_inp.bias", n_experts);
  list.optional_vector("exp_probs_b.bias", n_experts);
  if (layer.hash_routing) list.add("ffn_gate_tid2eid.weight", {0, h.routing.n_used}, Holding::kIntegers, false);
  list.add("ffn_gate_exps.bias", {n_experts, h.expert_width}, Holding::kValues, true);
  list.add("ffn_up_exps.bias", {n_experts, h.expert_width}, Holding::kValues, true);
  list.add("ffn_down_exps.bias", {n_experts, h.hidden}, Holding::kValues, true);
  if (has("ffn_gate_shexp.weight")) ffn("_shexp", h.shared_width, h, list);
}

}  // namespace

std::vector<LayerTensor> layer_tensors(const Hparams& h, int64_t index, const Has& has) {
  const LayerParams& layer = h.layers[static_cast<size_t>(index)];
  List list;
  list.vector("attn_norm.weight", h.hidden);
  switch (layer.attention) {
    case AttentionKind::kGrouped:
      grouped_attention(h, layer, list);
      break;
    case AttentionKind::kLatent:
      latent_attention(h, list);
      break;
    case AttentionKind::kCompressed:
      compressed_attention(h, layer, list);
      break;
  }
  // gpt-oss and GLM call the second norm by the name of its place in the checkpoint.
  list.vector(has("ffn_norm.weight") ? "ffn_norm.weight" : "post_attention_norm.weight", h.hidden);
  if (h.n_streams > 1) {
    hyper_connection("hc_attn", h, list);
    hyper_connection("hc_ffn", h, list);
  }
  if (layer.moe) {
    moe(h, layer, has, list);
  } else {
    ffn("", h.dense_width, h, list);
    list.optional_vector("ffn_gate.bias", h.dense_width);
    list.optional_vector("ffn_up.bias", h.dense_width);
    list.optional_vector("ffn_down.bias", h.hidden);
  }
  return std::move(list.tensors);
}

std::vector<LayerTensor> expert_stacks(const Hparams& h) {
  const int64_t n = h.routing.n_experts;
  return {{"ffn_gate_exps.weight", {n, h.expert_width, h.hidden}},
          {"ffn_up_exps.weight", {n, h.expert_width, h.hidden}},
          {"ffn_down_exps.weight", {n, h.hidden, h.expert_width}}};
}

const StoredMatrix* LayerWeights::find_matrix(std::string_view name) const noexcept {
  const auto found = matrices.find(name);
  return found == matrices.end() ? nullptr : &found->second;
}

const StoredMatrix& LayerWeights::matrix(std::string_view name) const {
  const StoredMatrix* found = find_matrix(name);
  QUERN_CHECK(found != nullptr);
  return *found;
}

std::span<const float> LayerWeights::value(std::string_view name) const noexcept {
  const auto found = values.find(name);
  return found == values.end() ? std::span<const float>() : std::span<const float>(found->second);
}

uint64_t LayerWeights::size_bytes() const noexcept {
  uint64_t sum = 0;
  for (const auto& [name, matrix] : matrices) sum += matrix.size_bytes();
  for (const auto& [name, floats] : values) sum += floats.size() * sizeof(float);
  for (const auto& [name, ids] : integers) sum += ids.size() * sizeof(int32_t);
  return sum;
}

}  // namespace quern
