// Attention with separate q, k and v projections and shared key heads: llama, Mistral, Mixtral, Qwen2, Qwen3, gpt-oss. Optional parts
// (biases, per-head norms before the rotation, sinks, sliding window) follow from the tensors and the layer's parameters.

#include <algorithm>

#include "formats/base/parallel.h"
#include "runtime/blocks/attention.h"
#include "runtime/blocks/layer.h"
#include "runtime/math/vector_math.h"

namespace quern {
namespace {

// Per head: norm (if the model has one), then rotation. x: heads of the rows of one piece.
void prepare_heads(const LayerContext& context, std::span<const float> norm, const RopeTable& table, int64_t n_heads, int64_t n, float* x) {
  const int64_t d = context.hparams.key_dim;
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < n_heads; ++h) {
        float* head = x + (t * n_heads + h) * d;
        if (!norm.empty()) rms_norm(head, norm.data(), d, context.hparams.norm_eps, head);
        table.rotate(head, t);
      }
    }
  });
}

// Queries, keys and values of all rows; keys and values go to the caches. Returns the position of the first token of each piece.
std::vector<int64_t> project(const LayerContext& context, const Rows& x, std::span<const Piece> pieces) {
  const Hparams& h = context.hparams;
  const int64_t q_width = h.n_heads * h.key_dim, k_width = context.layer.n_kv_heads * h.key_dim,
                v_width = context.layer.n_kv_heads * h.value_dim;
  float* q = context.work.query.resize(x.n_rows * q_width);
  float* k = context.work.key.resize(x.n_rows * k_width);
  float* v = context.work.value.resize(x.n_rows * v_width);
  observe_block(context, {"attn_q.weight", "attn_k.weight", "attn_v.weight"}, x, pieces);
  const PackedMatrix packed = pack_input(context.compute, x, context.work.packed_input);
  const std::span input(&packed, 1);
  const Product products[] = {{&context.weights.matrix("attn_q.weight"), input, q, q_width},
                              {&context.weights.matrix("attn_k.weight"), input, k, k_width},
                              {&context.weights.matrix("attn_v.weight"), input, v, v_width}};
  multiply(context.compute, products);
  add_bias(context.weights.value("attn_q.bias"), x.n_rows, q, q_width);
  add_bias(context.weights.value("attn_k.bias"), x.n_rows, k, k_width);
  add_bias(context.weights.value("attn_v.bias"), x.n_rows, v, v_width);
  std::vector<int64_t> positions;
  for (const Piece& piece : pieces) {
    LayerCache& cache = *piece.cache;
    positions.push_back(cache.n_tokens);
    const RopeTable& table = context.work.rope_table(context.rope, context.frequencies, cache.n_tokens, piece.n);
    float* keys = k + piece.first * k_width;
    const float* values = v + piece.first * v_width;
    prepare_heads(context, context.weights.value("attn_q_norm.weight"), table, h.n_heads, piece.n, q + piece.first * q_width);
    prepare_heads(context, context.weights.value("attn_k_norm.weight"), table, context.layer.n_kv_heads, piece.n, keys);
    cache.keys.insert(cache.keys.end(), keys, keys + piece.n * k_width);
    cache.values.insert(cache.values.end(), values, values + piece.n * v_width);
    cache.n_tokens += piece.n;
  }
  return positions;
}

// Keys and values of one key head as they are multiplied.
struct PackedHead {
  PackedMatrix keys, values;
};

// The heads of every cache, in the order of the pieces; pieces of one sequence follow one another and share a cache.
class PackedCaches {
 public:
  PackedCaches(const LayerContext& context, std::span<const Piece> pieces) : n_heads_(context.layer.n_kv_heads) {
    const Hparams& h = context.hparams;
    std::vector<int64_t> places;
    std::vector<const LayerCache*> caches;
    int64_t n_floats = 0;
    for (const Piece& piece : pieces) {
      if (caches.empty() || caches.back() != piece.cache) {
        caches.push_back(piece.cache);
        places.push_back(n_floats);
        n_floats += n_heads_ * (key_floats(h, *piece.cache) + packed_floats(h.value_dim, piece.cache->n_tokens));
      }
      cache_of_piece_.push_back(caches.size() - 1);
    }
    float* memory = context.work.packed_keys.resize(n_floats);
    heads_.resize(caches.size() * static_cast<size_t>(n_heads_));
    parallel_for(static_cast<int64_t>(heads_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto c = static_cast<size_t>(i / n_heads_);
        const int64_t n_floats_of_head = (c + 1 < places.size() ? places[c + 1] : n_floats) - places[c];
        heads_[static_cast<size_t>(i)] =
            pack(context, *caches[c], i % n_heads_, memory + places[c] + i % n_heads_ * (n_floats_of_head / n_heads_));
      }
    });
  }

  const PackedHead& head(size_t piece, int64_t head) const noexcept {
    return heads_[cache_of_piece_[piece] * static_cast<size_t>(n_heads_) + static_cast<size_t>(head)];
  }

 private:
  static int64_t key_floats(const Hparams& h, const LayerCache& cache) { return packed_floats(cache.n_tokens, h.key_dim); }

  static PackedHead pack(const LayerContext& context, const LayerCache& cache, int64_t head, float* out) {
    const Hparams& h = context.hparams;
    const Rows keys{cache.keys.data() + head * h.key_dim, cache.n_tokens, h.key_dim, context.layer.n_kv_heads * h.key_dim};
    const Rows values{cache.values.data() + head * h.value_dim, cache.n_tokens, h.value_dim, context.layer.n_kv_heads * h.value_dim};
    return {context.compute.kernel->pack_weights(keys, out), context.compute.kernel->pack_columns(values, out + key_floats(h, cache))};
  }

  int64_t n_heads_;
  std::vector<size_t> cache_of_piece_;
  std::vector<PackedHead> heads_;
};

// Sixteen queries of one head.
struct Task {
  size_t piece;
  int64_t head;
  int64_t first;  // row of the piece
};

}  // namespace

void grouped_attention(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out) {
  const Hparams& h = context.hparams;
  const std::vector<int64_t> positions = project(context, x, pieces);
  const PackedCaches caches(context, pieces);
  const int64_t q_stride = h.n_heads * h.key_dim, o_stride = h.n_heads * h.value_dim;
  const std::span<const float> sinks = context.weights.value("attn_sinks.weight");
  const float* q = context.work.query.data();
  float* mixed = context.work.mixed.resize(x.n_rows * o_stride);
  std::vector<Task> tasks;
  for (size_t p = 0; p < pieces.size(); ++p) {
    for (int64_t head = 0; head < h.n_heads; ++head) {
      for (int64_t first = 0; first < pieces[p].n; first += kPanelWidth) tasks.push_back({p, head, first});
    }
  }
  parallel_for(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    FloatBuffer scratch;
    for (int64_t i = begin; i < end; ++i) {
      const Task& task = tasks[static_cast<size_t>(i)];
      const Piece& piece = pieces[task.piece];
      const int64_t row = piece.first + task.first, n_queries = std::min(kPanelWidth, piece.n - task.first);
      const int64_t position = positions[task.piece] + task.first;
      const PackedHead& packed = caches.head(task.piece, task.head / (h.n_heads / context.layer.n_kv_heads));
      const KeySegment seen =
          causal_segment({.keys = packed.keys, .values = packed.values}, piece.cache->n_tokens, context.layer.window, position, n_queries);
      const AttentionShape shape{h.key_dim, h.value_dim, context.layer.attention_scale,
                                 sinks.empty() ? nullptr : &sinks[static_cast<size_t>(task.head)]};
      attend(*context.compute.kernel, shape, {{q + row * q_stride + task.head * h.key_dim, n_queries, h.key_dim, q_stride}, position},
             std::span(&seen, 1), scratch, mixed + row * o_stride + task.head * h.value_dim, o_stride);
    }
  });
  const Rows rows{mixed, x.n_rows, o_stride, o_stride};
  observe_block(context, {"attn_output.weight"}, rows, pieces);
  linear(context.compute, context.weights.matrix("attn_output.weight"), pack_input(context.compute, rows, context.work.packed_mixed), out,
         h.hidden);
  add_bias(context.weights.value("attn_output.bias"), x.n_rows, out, h.hidden);
}

}  // namespace quern
