// Multi-head latent attention (DeepSeek V2, V3). The cache holds the normalised latent and the one rotated key part shared by all
// heads; keys and values of a head are expanded from the latent when the head's turn comes, which costs fewer operations in a prefill
// than attending over the latent (320 against 1088 multiply-adds per query and key at V3's sizes) and memory for one head only.

#include <algorithm>

#include "formats/base/parallel.h"
#include "runtime/attention.h"
#include "runtime/models/layer.h"
#include "runtime/norm.h"

namespace quern {
namespace {

std::vector<float> project(const LayerContext& context, const char* name, const PackedRows& x) {
  const StoredMatrix& w = context.weights.matrix(name);
  std::vector<float> y(static_cast<size_t>(x.n_rows() * w.n_rows));
  linear(context.compute, w, x, y.data(), w.n_rows);
  return y;
}

std::vector<float> queries(const LayerContext& context, const PackedRows& x) {
  const Hparams& h = context.hparams;
  if (h.q_rank == 0) return project(context, "attn_q.weight", x);
  std::vector<float> latent = project(context, "attn_q_a.weight", x);
  const std::span<const float> norm = context.weights.value("attn_q_a_norm.weight");
  for (int64_t t = 0; t < x.n_rows(); ++t) {
    rms_norm(latent.data() + t * h.q_rank, norm.data(), h.q_rank, h.norm_eps, latent.data() + t * h.q_rank);
  }
  const PackedRows packed(latent.data(), x.n_rows(), h.q_rank, h.q_rank);
  observe_block(context, {"attn_q_b.weight"}, packed);
  return project(context, "attn_q_b.weight", packed);
}

// The rows of a head that turn the latent into keys and values, in either stored form.
struct HeadMatrices {
  PanelMatrix key, value;
};

HeadMatrices head_matrices(const LayerContext& context, int64_t head) {
  const Hparams& h = context.hparams;
  const int64_t nope = h.key_dim - context.rope.n_dims, rank = h.kv_rank;
  if (h.split_kv_b) {
    return {{context.weights.value("attn_k_b.weight").data() + head * rank * nope, nope, 1, nope},
            {context.weights.value("attn_v_b.weight").data() + head * h.value_dim * rank, h.value_dim, rank, 1}};
  }
  const float* rows = context.weights.value("attn_kv_b.weight").data() + head * (nope + h.value_dim) * rank;
  return {{rows, nope, rank, 1}, {rows + nope * rank, h.value_dim, rank, 1}};
}

void append_to_cache(const LayerContext& context, const PackedRows& x, const RopeTable& table, LayerCache& cache) {
  const Hparams& h = context.hparams;
  const int64_t rope_dim = context.rope.n_dims, width = h.kv_rank + rope_dim;
  std::vector<float> latent = project(context, "attn_kv_a_mqa.weight", x);
  const std::span<const float> norm = context.weights.value("attn_kv_a_norm.weight");
  for (int64_t t = 0; t < x.n_rows(); ++t) {
    float* row = latent.data() + t * width;
    rms_norm(row, norm.data(), h.kv_rank, h.norm_eps, row);
    table.rotate(row + h.kv_rank, t);
    cache.keys.insert(cache.keys.end(), row, row + h.kv_rank);
    cache.values.insert(cache.values.end(), row + h.kv_rank, row + width);
  }
  cache.n_tokens += x.n_rows();
}

// keys: [n, nope + rope], values: [n, value_dim] of one head for all cached tokens.
void expand_head(const LayerContext& context, const LayerCache& cache, const PackedRows& latent, int64_t head, std::vector<float>& keys,
                 std::vector<float>& values) {
  const Hparams& h = context.hparams;
  const int64_t rope_dim = context.rope.n_dims, nope = h.key_dim - rope_dim;
  const HeadMatrices matrices = head_matrices(context, head);
  keys.resize(static_cast<size_t>(cache.n_tokens * h.key_dim));
  values.resize(static_cast<size_t>(cache.n_tokens * h.value_dim));
  std::vector<float> panel(static_cast<size_t>(std::max(nope, h.value_dim) * kPanelWidth));
  for (int64_t p = 0; p < latent.n_panels(); ++p) {
    const int64_t token = p * kPanelWidth, n = std::min(kPanelWidth, cache.n_tokens - token);
    context.compute.product(matrices.key, latent.panel(p), h.kv_rank, panel.data());
    unpack_panel(panel.data(), n, nope, keys.data() + token * h.key_dim, h.key_dim);
    context.compute.product(matrices.value, latent.panel(p), h.kv_rank, panel.data());
    unpack_panel(panel.data(), n, h.value_dim, values.data() + token * h.value_dim, h.value_dim);
  }
  for (int64_t t = 0; t < cache.n_tokens; ++t) {
    std::copy_n(cache.values.data() + t * rope_dim, rope_dim, keys.data() + t * h.key_dim + nope);
  }
}

// In either stored form: attn_kv_b multiplies latents, attn_k_b as GGUF has it the part of a head's queries that is not rotated.
void observe_keys(const LayerContext& context, const std::vector<float>& q, const PackedRows& new_latents) {
  const Hparams& h = context.hparams;
  const int64_t nope = h.key_dim - context.rope.n_dims, q_stride = h.n_heads * h.key_dim;
  observe_block(context, {"attn_kv_b.weight"}, new_latents);
  for (int64_t head = 0; h.split_kv_b && head < h.n_heads; ++head) {
    observe_block(context, {"attn_k_b.weight"}, PackedRows(q.data() + head * h.key_dim, new_latents.n_rows(), nope, q_stride), head);
  }
}

}  // namespace

void latent_attention(const LayerContext& context, const PackedRows& x, LayerCache& cache, float* out) {
  const Hparams& h = context.hparams;
  const int64_t n = x.n_rows(), first = cache.n_tokens, nope = h.key_dim - context.rope.n_dims;
  const RopeTable table(context.rope, context.frequencies, first, n);
  observe_block(context, {"attn_q.weight", "attn_q_a.weight", "attn_kv_a_mqa.weight"}, x);
  std::vector<float> q = queries(context, x);
  const int64_t q_stride = h.n_heads * h.key_dim, o_stride = h.n_heads * h.value_dim;
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < h.n_heads; ++head) table.rotate(q.data() + t * q_stride + head * h.key_dim + nope, t);
  }
  append_to_cache(context, x, table, cache);
  const PackedRows latent(cache.keys.data(), cache.n_tokens, h.kv_rank, h.kv_rank);
  const bool observed = context.compute.observer != nullptr;
  if (observed) observe_keys(context, q, PackedRows(cache.keys.data() + first * h.kv_rank, n, h.kv_rank, h.kv_rank));

  std::vector<float> mixed(static_cast<size_t>(n * o_stride));
  std::vector<float> mixed_latents(observed && h.split_kv_b ? static_cast<size_t>(h.n_heads * n * h.kv_rank) : 0);
  parallel_for(h.n_heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> panel(static_cast<size_t>(h.key_dim * kPanelWidth)), result(static_cast<size_t>(h.value_dim * kPanelWidth));
    std::vector<float> keys, values, scratch;
    for (int64_t head = begin; head < end; ++head) {
      expand_head(context, cache, latent, head, keys, values);
      for (int64_t token = 0; token < n; token += kPanelWidth) {
        const int64_t n_queries = std::min(kPanelWidth, n - token);
        pack_panel(q.data() + token * q_stride + head * h.key_dim, n_queries, h.key_dim, q_stride, panel.data());
        const KeySegment all{.keys = keys.data(), .key_stride = h.key_dim, .values = values.data(), .value_stride = h.value_dim};
        const KeySegment seen = causal_segment(all, cache.n_tokens, context.layer.window, first + token, n_queries);
        attend(context.compute.product, {h.key_dim, h.value_dim, context.layer.attention_scale}, {panel.data(), n_queries, first + token},
               std::span(&seen, 1), scratch, result.data());
        unpack_panel(result.data(), n_queries, h.value_dim, mixed.data() + token * o_stride + head * h.value_dim, o_stride);
        if (mixed_latents.empty()) continue;
        result.resize(static_cast<size_t>(std::max(h.value_dim, h.kv_rank) * kPanelWidth));
        KeySegment latents = all;
        latents.values = cache.keys.data();
        latents.value_stride = h.kv_rank;
        latents = causal_segment(latents, cache.n_tokens, context.layer.window, first + token, n_queries);
        attend(context.compute.product, {h.key_dim, h.kv_rank, context.layer.attention_scale}, {panel.data(), n_queries, first + token},
               std::span(&latents, 1), scratch, result.data());
        unpack_panel(result.data(), n_queries, h.kv_rank, mixed_latents.data() + (head * n + token) * h.kv_rank, h.kv_rank);
      }
    }
  });
  for (int64_t head = 0; !mixed_latents.empty() && head < h.n_heads; ++head) {
    observe_block(context, {"attn_v_b.weight"}, PackedRows(mixed_latents.data() + head * n * h.kv_rank, n, h.kv_rank, h.kv_rank), head);
  }
  const PackedRows packed(mixed.data(), n, o_stride, o_stride);
  observe_block(context, {"attn_output.weight"}, packed);
  linear(context.compute, context.weights.matrix("attn_output.weight"), packed, out, h.hidden);
}

}  // namespace quern
