// Multi-head latent attention (DeepSeek V2, V3). The cache holds the normalised latent and the one rotated key part shared by all
// heads; keys and values of a head are expanded from the latent when the head's turn comes, which costs fewer operations in a prefill
// than attending over the latent (320 against 1088 multiply-adds per query and key at V3's sizes) and memory for one head only.

#include <algorithm>

#include "formats/base/parallel.h"
#include "runtime/blocks/attention.h"
#include "runtime/blocks/layer.h"
#include "runtime/math/vector_math.h"

namespace quern {
namespace {

std::vector<float> project(const LayerContext& context, const char* name, const PackedMatrix& x) {
  const StoredMatrix& w = context.weights.matrix(name);
  std::vector<float> y(static_cast<size_t>(x.n * w.n_rows));
  linear(context.compute, w, x, y.data(), w.n_rows);
  return y;
}

std::vector<float> queries(const LayerContext& context, const PackedMatrix& x) {
  const Hparams& h = context.hparams;
  if (h.q_rank == 0) return project(context, "attn_q.weight", x);
  std::vector<float> latent = project(context, "attn_q_a.weight", x);
  const std::span<const float> norm = context.weights.value("attn_q_a_norm.weight");
  parallel_for(x.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      rms_norm(latent.data() + t * h.q_rank, norm.data(), h.q_rank, h.norm_eps, latent.data() + t * h.q_rank);
    }
  });
  const Rows rows{latent.data(), x.n, h.q_rank, h.q_rank};
  observe_block(context, {"attn_q_b.weight"}, rows);
  return project(context, "attn_q_b.weight", pack_input(context.compute, rows, context.work.packed_mixed));
}

// What turns the latent into keys and values of a head, in either stored form.
struct HeadMatrices {
  PackedMatrix key, value;
};

// Floats that the two packed matrices of a head take, the keys' part of them first.
int64_t key_matrix_floats(const LayerContext& context) {
  return packed_floats(context.hparams.key_dim - context.rope.n_dims, context.hparams.kv_rank);
}
int64_t head_matrix_floats(const LayerContext& context) {
  return key_matrix_floats(context) + packed_floats(context.hparams.value_dim, context.hparams.kv_rank);
}

HeadMatrices head_matrices(const LayerContext& context, int64_t head, float* out) {
  const Hparams& h = context.hparams;
  const ProductKernel& kernel = *context.compute.kernel;
  const int64_t nope = h.key_dim - context.rope.n_dims, rank = h.kv_rank;
  float* value_out = out + key_matrix_floats(context);
  if (h.split_kv_b) {
    const float* key = context.weights.value("attn_k_b.weight").data() + head * rank * nope;  // [rank, nope]
    const float* value = context.weights.value("attn_v_b.weight").data() + head * h.value_dim * rank;
    return {kernel.pack_columns({key, rank, nope, nope}, out), kernel.pack_weights({value, h.value_dim, rank, rank}, value_out)};
  }
  const float* rows = context.weights.value("attn_kv_b.weight").data() + head * (nope + h.value_dim) * rank;
  return {kernel.pack_weights({rows, nope, rank, rank}, out),
          kernel.pack_weights({rows + nope * rank, h.value_dim, rank, rank}, value_out)};
}

void append_to_cache(const LayerContext& context, const PackedMatrix& x, const RopeTable& table, LayerCache& cache) {
  const Hparams& h = context.hparams;
  const int64_t rope_dim = context.rope.n_dims, width = h.kv_rank + rope_dim;
  std::vector<float> latent = project(context, "attn_kv_a_mqa.weight", x);
  const std::span<const float> norm = context.weights.value("attn_kv_a_norm.weight");
  for (int64_t t = 0; t < x.n; ++t) {
    float* row = latent.data() + t * width;
    rms_norm(row, norm.data(), h.kv_rank, h.norm_eps, row);
    table.rotate(row + h.kv_rank, t);
    cache.keys.insert(cache.keys.end(), row, row + h.kv_rank);
    cache.values.insert(cache.values.end(), row + h.kv_rank, row + width);
  }
  cache.n_tokens += x.n;
}

// One thread's memory.
struct HeadScratch {
  FloatBuffer matrices, keys, values, packed, attention;
};

// keys: [n, nope + rope], values: [n, value_dim] of one head for all cached tokens, in scratch.keys and scratch.values.
void expand_head(const LayerContext& context, const LayerCache& cache, const PackedMatrix& latent, int64_t head, HeadScratch& scratch) {
  const Hparams& h = context.hparams;
  const ProductKernel& kernel = *context.compute.kernel;
  const int64_t rope_dim = context.rope.n_dims, nope = h.key_dim - rope_dim;
  const HeadMatrices matrices = head_matrices(context, head, scratch.matrices.resize(head_matrix_floats(context)));
  float* keys = scratch.keys.resize(cache.n_tokens * h.key_dim);
  float* values = scratch.values.resize(cache.n_tokens * h.value_dim);
  kernel.multiply(latent, matrices.key, h.kv_rank, keys, h.key_dim);
  kernel.multiply(latent, matrices.value, h.kv_rank, values, h.value_dim);
  for (int64_t t = 0; t < cache.n_tokens; ++t) std::copy_n(cache.values.data() + t * rope_dim, rope_dim, keys + t * h.key_dim + nope);
}

// In either stored form: attn_kv_b multiplies latents, attn_k_b as GGUF has it the part of a head's queries that is not rotated.
void observe_keys(const LayerContext& context, const std::vector<float>& q, const Rows& new_latents) {
  const Hparams& h = context.hparams;
  const int64_t nope = h.key_dim - context.rope.n_dims, q_stride = h.n_heads * h.key_dim;
  observe_block(context, {"attn_kv_b.weight"}, new_latents);
  for (int64_t head = 0; h.split_kv_b && head < h.n_heads; ++head) {
    observe_block(context, {"attn_k_b.weight"}, Rows{q.data() + head * h.key_dim, new_latents.n_rows, nope, q_stride}, head);
  }
}

}  // namespace

void latent_attention(const LayerContext& context, const Rows& x, LayerCache& cache, float* out) {
  const Hparams& h = context.hparams;
  const ProductKernel& kernel = *context.compute.kernel;
  const int64_t n = x.n_rows, first = cache.n_tokens, nope = h.key_dim - context.rope.n_dims;
  const RopeTable& table = context.work.rope_table(context.rope, context.frequencies, first, n);
  observe_block(context, {"attn_q.weight", "attn_q_a.weight", "attn_kv_a_mqa.weight"}, x);
  const PackedMatrix packed_x = pack_input(context.compute, x, context.work.packed_input);
  std::vector<float> q = queries(context, packed_x);
  const int64_t q_stride = h.n_heads * h.key_dim, o_stride = h.n_heads * h.value_dim;
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < h.n_heads; ++head) table.rotate(q.data() + t * q_stride + head * h.key_dim + nope, t);
    }
  });
  append_to_cache(context, packed_x, table, cache);
  const Rows latent_rows{cache.keys.data(), cache.n_tokens, h.kv_rank, h.kv_rank};
  const PackedMatrix latent = pack_input(context.compute, latent_rows, context.work.packed_keys);
  const bool observed = context.compute.observer != nullptr;
  if (observed) observe_keys(context, q, latent_rows.slice(first, n));

  float* mixed = context.work.mixed.resize(n * o_stride);
  std::vector<float> mixed_latents(observed && h.split_kv_b ? static_cast<size_t>(h.n_heads * n * h.kv_rank) : 0);
  FloatBuffer latent_columns;
  const PackedMatrix latent_values =
      mixed_latents.empty() ? PackedMatrix{}
                            : kernel.pack_columns(latent_rows, latent_columns.resize(packed_floats(h.kv_rank, cache.n_tokens)));
  parallel_for(h.n_heads, 1, [&](int64_t begin, int64_t end) {
    HeadScratch scratch;
    for (int64_t head = begin; head < end; ++head) {
      expand_head(context, cache, latent, head, scratch);
      const int64_t key_floats = packed_floats(cache.n_tokens, h.key_dim);
      float* packed = scratch.packed.resize(key_floats + packed_floats(h.value_dim, cache.n_tokens));
      const KeySegment all{
          .keys = kernel.pack_weights({scratch.keys.data(), cache.n_tokens, h.key_dim, h.key_dim}, packed),
          .values = kernel.pack_columns({scratch.values.data(), cache.n_tokens, h.value_dim, h.value_dim}, packed + key_floats)};
      for (int64_t token = 0; token < n; token += kPanelWidth) {
        const int64_t n_queries = std::min(kPanelWidth, n - token);
        const QueryPanel queries{{q.data() + token * q_stride + head * h.key_dim, n_queries, h.key_dim, q_stride}, first + token};
        KeySegment seen = causal_segment(all, cache.n_tokens, context.layer.window, first + token, n_queries);
        attend(kernel, {h.key_dim, h.value_dim, context.layer.attention_scale}, queries, std::span(&seen, 1), scratch.attention,
               mixed + token * o_stride + head * h.value_dim, o_stride);
        if (mixed_latents.empty()) continue;
        seen.values = latent_values.from_k(seen.first_position);
        attend(kernel, {h.key_dim, h.kv_rank, context.layer.attention_scale}, queries, std::span(&seen, 1), scratch.attention,
               mixed_latents.data() + (head * n + token) * h.kv_rank, h.kv_rank);
      }
    }
  });
  for (int64_t head = 0; !mixed_latents.empty() && head < h.n_heads; ++head) {
    observe_block(context, {"attn_v_b.weight"}, Rows{mixed_latents.data() + head * n * h.kv_rank, n, h.kv_rank, h.kv_rank}, head);
  }
  const Rows rows{mixed, n, o_stride, o_stride};
  observe_block(context, {"attn_output.weight"}, rows);
  linear(context.compute, context.weights.matrix("attn_output.weight"), pack_input(context.compute, rows, context.work.packed_mixed), out,
         h.hidden);
}

}  // namespace quern
