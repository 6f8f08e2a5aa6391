// Multi-head latent attention (DeepSeek V2, V3). The cache holds the normalised latent and the one rotated key part shared by all
// heads; keys and values of a head are expanded from the latent when the head's turn comes, which costs fewer operations in a prefill
// than attending over the latent (320 against 1088 multiply-adds per query and key at V3's sizes) and memory for one head only.

#include <algorithm>

#include "formats/base/parallel.h"
#include "runtime/blocks/attention.h"
#include "runtime/blocks/mixer_kinds.h"
#include "runtime/math/vector_math.h"

namespace quern {
namespace {

class LatentAttention final : public Mixer {
 public:
  void list(const Hparams& h, const LayerParams& layer, WeightList& weights) override;
  // Keys: the normalised latents [n_tokens, kv_rank]; values: the rotated key parts [n_tokens, rope_dim].
  std::unique_ptr<LayerCache> make_cache() const override { return std::make_unique<KeyValueCache>(); }
  void run(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out) const override {
    for (const Piece& piece : pieces) {
      run_piece(context, x.slice(piece.first, piece.n), static_cast<KeyValueCache&>(*piece.cache),
                out + piece.first * context.hparams.hidden);
    }
  }

 private:
  struct HeadMatrices;
  struct HeadScratch;

  void run_piece(const LayerContext& context, const Rows& x, KeyValueCache& cache, float* out) const;
  std::vector<float> queries(const LayerContext& context, const PackedMatrix& x) const;
  void append_to_cache(const LayerContext& context, const PackedMatrix& x, const RopeTable& table, KeyValueCache& cache) const;
  HeadMatrices head_matrices(const LayerContext& context, int64_t head, float* out) const;
  void expand_head(const LayerContext& context, const KeyValueCache& cache, const PackedMatrix& latent, int64_t head,
                   HeadScratch& scratch) const;
  void attend_heads(const LayerContext& context, const std::vector<float>& q, const KeyValueCache& cache, float* mixed) const;
  void observe_keys(const LayerContext& context, const std::vector<float>& q, const Rows& new_latents) const;

  StoredMatrix q_;  // [n_heads * key_dim, hidden], or in two steps:
  StoredMatrix q_a_, q_b_;
  FloatTensor q_a_norm_;
  StoredMatrix kv_a_;  // [kv_rank + rope_dim, hidden]
  FloatTensor kv_a_norm_;
  FloatTensor k_b_, v_b_;  // [n_heads, kv_rank, nope_dim], [n_heads, value_dim, kv_rank]; or in one:
  FloatTensor kv_b_;       // [n_heads * (nope_dim + value_dim), kv_rank]
  StoredMatrix output_;    // [hidden, n_heads * value_dim]
};

void LatentAttention::list(const Hparams& h, const LayerParams& layer, WeightList& weights) {
  const int64_t rope_dim = h.ropes[layer.rope].n_dims, nope_dim = h.key_dim - rope_dim;
  if (h.q_rank > 0) {
    weights.matrix("attn_q_a.weight", h.q_rank, h.hidden, q_a_);
    weights.floats("attn_q_a_norm.weight", {h.q_rank}, q_a_norm_);
    weights.matrix("attn_q_b.weight", h.n_heads * h.key_dim, h.q_rank, q_b_);
  } else {
    weights.matrix("attn_q.weight", h.n_heads * h.key_dim, h.hidden, q_);
  }
  weights.matrix("attn_kv_a_mqa.weight", h.kv_rank + rope_dim, h.hidden, kv_a_);
  weights.floats("attn_kv_a_norm.weight", {h.kv_rank}, kv_a_norm_);
  if (h.split_kv_b) {
    weights.floats("attn_k_b.weight", {h.n_heads, h.kv_rank, nope_dim}, k_b_);
    weights.floats("attn_v_b.weight", {h.n_heads, h.value_dim, h.kv_rank}, v_b_);
  } else {
    weights.floats("attn_kv_b.weight", {h.n_heads * (nope_dim + h.value_dim), h.kv_rank}, kv_b_);
  }
  weights.matrix("attn_output.weight", h.hidden, h.n_heads * h.value_dim, output_);
}

// [n, n_heads * key_dim], not rotated.
std::vector<float> LatentAttention::queries(const LayerContext& context, const PackedMatrix& x) const {
  const Hparams& h = context.hparams;
  if (h.q_rank == 0) return linear(context.compute, q_, x);
  std::vector<float> latent = linear(context.compute, q_a_, x);  // [n, q_rank]
  parallel_for(x.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      rms_norm(latent.data() + t * h.q_rank, q_a_norm_.data(), h.q_rank, h.norm_eps, latent.data() + t * h.q_rank);
    }
  });
  const Rows rows{latent.data(), x.n, h.q_rank, h.q_rank};
  observe(context, {q_b_.info}, rows);
  return linear(context.compute, q_b_, pack_input(context.compute, rows, context.work.packed_mixed));
}

// What turns the latent into keys and values of a head, in either stored form.
struct LatentAttention::HeadMatrices {
  PackedMatrix key, value;
};

// Floats that the two packed matrices of a head take, the keys' part of them first.
int64_t key_matrix_floats(const LayerContext& context) {
  return packed_floats(context.hparams.key_dim - context.rope.n_dims, context.hparams.kv_rank);
}
int64_t head_matrix_floats(const LayerContext& context) {
  return key_matrix_floats(context) + packed_floats(context.hparams.value_dim, context.hparams.kv_rank);
}

LatentAttention::HeadMatrices LatentAttention::head_matrices(const LayerContext& context, int64_t head, float* out) const {
  const Hparams& h = context.hparams;
  const ProductKernel& kernel = *context.compute.kernel;
  const int64_t nope = h.key_dim - context.rope.n_dims, rank = h.kv_rank;
  float* value_out = out + key_matrix_floats(context);
  if (h.split_kv_b) {
    const float* key = k_b_.data() + head * rank * nope;  // [rank, nope]
    const float* value = v_b_.data() + head * h.value_dim * rank;
    return {kernel.pack_columns({key, rank, nope, nope}, out), kernel.pack_weights({value, h.value_dim, rank, rank}, value_out)};
  }
  const float* rows = kv_b_.data() + head * (nope + h.value_dim) * rank;
  return {kernel.pack_weights({rows, nope, rank, rank}, out),
          kernel.pack_weights({rows + nope * rank, h.value_dim, rank, rank}, value_out)};
}

void LatentAttention::append_to_cache(const LayerContext& context, const PackedMatrix& x, const RopeTable& table,
                                      KeyValueCache& cache) const {
  const Hparams& h = context.hparams;
  const int64_t rope_dim = context.rope.n_dims, width = h.kv_rank + rope_dim;
  std::vector<float> latent = linear(context.compute, kv_a_, x);  // [n, kv_rank + rope_dim]
  for (int64_t t = 0; t < x.n; ++t) {
    float* row = latent.data() + t * width;
    rms_norm(row, kv_a_norm_.data(), h.kv_rank, h.norm_eps, row);
    table.rotate(row + h.kv_rank, t);
    cache.keys.insert(cache.keys.end(), row, row + h.kv_rank);
    cache.values.insert(cache.values.end(), row + h.kv_rank, row + width);
  }
  cache.n_tokens += x.n;
}

// One thread's memory.
struct LatentAttention::HeadScratch {
  FloatBuffer matrices, keys, values, packed, attention;
};

// keys: [n, nope + rope], values: [n, value_dim] of one head for all cached tokens, in scratch.keys and scratch.values.
void LatentAttention::expand_head(const LayerContext& context, const KeyValueCache& cache, const PackedMatrix& latent, int64_t head,
                                  HeadScratch& scratch) const {
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
void LatentAttention::observe_keys(const LayerContext& context, const std::vector<float>& q, const Rows& new_latents) const {
  const Hparams& h = context.hparams;
  const int64_t nope = h.key_dim - context.rope.n_dims, q_stride = h.n_heads * h.key_dim;
  observe(context, {kv_b_.info}, new_latents);
  for (int64_t head = 0; h.split_kv_b && head < h.n_heads; ++head) {
    observe(context, {k_b_.info}, Rows{q.data() + head * h.key_dim, new_latents.n_rows, nope, q_stride}, head);
  }
}

// mixed: [n, n_heads * value_dim] for the last n tokens of the cache, whose queries are q.
void LatentAttention::attend_heads(const LayerContext& context, const std::vector<float>& q, const KeyValueCache& cache,
                                   float* mixed) const {
  const Hparams& h = context.hparams;
  const ProductKernel& kernel = *context.compute.kernel;
  const int64_t q_stride = h.n_heads * h.key_dim, o_stride = h.n_heads * h.value_dim;
  const int64_t n = static_cast<int64_t>(q.size()) / q_stride, first = cache.n_tokens - n;
  const Rows latent_rows{cache.keys.data(), cache.n_tokens, h.kv_rank, h.kv_rank};
  const PackedMatrix latent = pack_input(context.compute, latent_rows, context.work.packed_keys);
  const bool observed = context.compute.observer != nullptr;
  if (observed) observe_keys(context, q, latent_rows.slice(first, n));

  std::vector<float> mixed_latents(observed && h.split_kv_b ? static_cast<size_t>(h.n_heads * n * h.kv_rank) : 0);  // [n_heads, n, kv_rank]
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
    observe(context, {v_b_.info}, Rows{mixed_latents.data() + head * n * h.kv_rank, n, h.kv_rank, h.kv_rank}, head);
  }
}

void LatentAttention::run_piece(const LayerContext& context, const Rows& x, KeyValueCache& cache, float* out) const {
  const Hparams& h = context.hparams;
  const int64_t n = x.n_rows, nope = h.key_dim - context.rope.n_dims, q_stride = h.n_heads * h.key_dim, o_stride = h.n_heads * h.value_dim;
  const RopeTable& table = context.work.rope_table(context.rope, context.frequencies, cache.n_tokens, n);
  observe(context, {q_.info, q_a_.info, kv_a_.info}, x);
  const PackedMatrix packed_x = pack_input(context.compute, x, context.work.packed_input);
  std::vector<float> q = queries(context, packed_x);  // [n, n_heads, key_dim]
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < h.n_heads; ++head) table.rotate(q.data() + t * q_stride + head * h.key_dim + nope, t);
    }
  });
  append_to_cache(context, packed_x, table, cache);
  float* mixed = context.work.mixed.resize(n * o_stride);
  attend_heads(context, q, cache, mixed);
  const Rows rows{mixed, n, o_stride, o_stride};
  observe(context, {output_.info}, rows);
  linear(context.compute, output_, pack_input(context.compute, rows, context.work.packed_mixed), out, h.hidden);
}

int64_t batch_floats(const Hparams& h, const LayerParams&, const MixerLoad& load) {
  const int64_t cached = 2 * (h.kv_rank + h.key_dim);  // and packed
  const int64_t mixed_latents = load.observed ? h.n_heads * h.kv_rank * std::min(load.batch, kQueryTile) : 0;
  return load.batch * h.n_heads * (2 * h.key_dim + 2 * h.value_dim) + std::max(load.batch, load.longest) * cached + mixed_latents;
}

// Keys and values of the head that a thread has expanded, packed too.
int64_t thread_floats(const Hparams& h, const LayerParams&, const MixerLoad& load) {
  return attend_floats(load.longest) + load.longest * 2 * (h.key_dim + h.value_dim);
}

}  // namespace

const MixerKind kLatentAttention = {
    .kind = AttentionKind::kLatent,
    .make = [] { return std::unique_ptr<Mixer>(std::make_unique<LatentAttention>()); },
    .batch_floats = batch_floats,
    .thread_floats = thread_floats,
    .float_suffix = "_b.weight",  // takes in attn_q_b, which is a matrix: too much rather than too little
};

}  // namespace quern
