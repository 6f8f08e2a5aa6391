// Attention with separate q, k and v projections and shared key heads: llama, Mistral, Mixtral, Qwen2, Qwen3, gpt-oss. Optional parts
// (biases, per-head norms before the rotation, sinks, sliding window) follow from the tensors and the layer's parameters.

#include <algorithm>

#include "formats/base/parallel.h"
#include "runtime/attention.h"
#include "runtime/models/layer.h"
#include "runtime/norm.h"

namespace quern {
namespace {

// Per head: norm (if the model has one), then rotation.
void prepare_heads(const LayerContext& context, std::span<const float> norm, const RopeTable& table, int64_t n_heads, int64_t n, float* x) {
  const int64_t d = context.hparams.key_dim;
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t h = 0; h < n_heads; ++h) {
      float* head = x + (t * n_heads + h) * d;
      if (!norm.empty()) rms_norm(head, norm.data(), d, context.hparams.norm_eps, head);
      table.rotate(head, t);
    }
  }
}

std::vector<float> project(const LayerContext& context, const char* name, const char* bias, const PackedRows& x) {
  const StoredMatrix& w = context.weights.matrix(name);
  std::vector<float> y(static_cast<size_t>(x.n_rows() * w.n_rows));
  linear(context.compute, w, x, y.data(), w.n_rows);
  add_bias(context.weights.value(bias), x.n_rows(), y.data(), w.n_rows);
  return y;
}

}  // namespace

void grouped_attention(const LayerContext& context, const PackedRows& x, LayerCache& cache, float* out) {
  const Hparams& h = context.hparams;
  const int64_t n = x.n_rows(), first = cache.n_tokens;
  const RopeTable table(context.rope, context.frequencies, first, n);
  observe_block(context, {"attn_q.weight", "attn_k.weight", "attn_v.weight"}, x);
  std::vector<float> q = project(context, "attn_q.weight", "attn_q.bias", x);
  std::vector<float> k = project(context, "attn_k.weight", "attn_k.bias", x);
  const std::vector<float> v = project(context, "attn_v.weight", "attn_v.bias", x);
  prepare_heads(context, context.weights.value("attn_q_norm.weight"), table, h.n_heads, n, q.data());
  prepare_heads(context, context.weights.value("attn_k_norm.weight"), table, h.n_kv_heads, n, k.data());
  cache.keys.insert(cache.keys.end(), k.begin(), k.end());
  cache.values.insert(cache.values.end(), v.begin(), v.end());
  cache.n_tokens += n;

  const int64_t q_stride = h.n_heads * h.key_dim, o_stride = h.n_heads * h.value_dim;
  const int64_t k_stride = h.n_kv_heads * h.key_dim, v_stride = h.n_kv_heads * h.value_dim;
  const std::span<const float> sinks = context.weights.value("attn_sinks.weight");
  std::vector<float> mixed(static_cast<size_t>(n * o_stride));
  const int64_t n_panels = (n + kPanelWidth - 1) / kPanelWidth;
  parallel_for(h.n_heads * n_panels, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> panel(static_cast<size_t>(h.key_dim * kPanelWidth)), result(static_cast<size_t>(h.value_dim * kPanelWidth)), scratch;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task / n_panels, token = task % n_panels * kPanelWidth;
      const int64_t kv_head = head / (h.n_heads / h.n_kv_heads), n_queries = std::min(kPanelWidth, n - token);
      pack_panel(q.data() + token * q_stride + head * h.key_dim, n_queries, h.key_dim, q_stride, panel.data());
      const KeySegment all{.keys = cache.keys.data() + kv_head * h.key_dim,
                           .key_stride = k_stride,
                           .values = cache.values.data() + kv_head * h.value_dim,
                           .value_stride = v_stride};
      const KeySegment seen = causal_segment(all, cache.n_tokens, context.layer.window, first + token, n_queries);
      const AttentionShape shape{h.key_dim, h.value_dim, context.layer.attention_scale,
                                 sinks.empty() ? nullptr : &sinks[static_cast<size_t>(head)]};
      attend(context.compute.product, shape, {panel.data(), n_queries, first + token}, std::span(&seen, 1), scratch, result.data());
      unpack_panel(result.data(), n_queries, h.value_dim, mixed.data() + token * o_stride + head * h.value_dim, o_stride);
    }
  });
  const PackedRows packed(mixed.data(), n, o_stride, o_stride);
  observe_block(context, {"attn_output.weight"}, packed);
  linear(context.compute, context.weights.matrix("attn_output.weight"), packed, out, h.hidden);
  add_bias(context.weights.value("attn_output.bias"), n, out, h.hidden);
}

}  // namespace quern
