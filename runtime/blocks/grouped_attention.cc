// Attention with separate q, k and v projections and shared key heads: llama, Mistral, Mixtral, Qwen2, Qwen3, gpt-oss. Optional parts
// (biases, per-head norms before the rotation, sinks, sliding window) follow from the tensors and the layer's parameters.

#include <algorithm>

#include "formats/base/parallel.h"
#include "runtime/blocks/attention.h"
#include "runtime/blocks/mixer_kinds.h"
#include "runtime/math/vector_math.h"

namespace quern {
namespace {

class GroupedAttention final : public Mixer {
 public:
  void list(const Hparams& h, const LayerParams& layer, WeightList& weights) override {
    const int64_t q_rows = h.n_heads * h.key_dim, k_rows = layer.n_kv_heads * h.key_dim, v_rows = layer.n_kv_heads * h.value_dim;
    weights.matrix("attn_q.weight", q_rows, h.hidden, q_);
    weights.matrix("attn_k.weight", k_rows, h.hidden, k_);
    weights.matrix("attn_v.weight", v_rows, h.hidden, v_);
    weights.matrix("attn_output.weight", h.hidden, h.n_heads * h.value_dim, output_);
    weights.floats_if_stored("attn_q.bias", {q_rows}, q_bias_);
    weights.floats_if_stored("attn_k.bias", {k_rows}, k_bias_);
    weights.floats_if_stored("attn_v.bias", {v_rows}, v_bias_);
    weights.floats_if_stored("attn_output.bias", {h.hidden}, output_bias_);
    weights.floats_if_stored("attn_q_norm.weight", {h.key_dim}, q_norm_);
    weights.floats_if_stored("attn_k_norm.weight", {h.key_dim}, k_norm_);
    weights.floats_if_stored("attn_sinks.weight", {h.n_heads}, sinks_);
  }
  // Keys: [n_tokens, n_kv_heads * key_dim]; values: [n_tokens, n_kv_heads * value_dim].
  std::unique_ptr<LayerCache> make_cache() const override { return std::make_unique<KeyValueCache>(); }
  void run(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out) const override;

 private:
  std::vector<int64_t> project(const LayerContext& context, const Rows& x, std::span<const Piece> pieces) const;

  StoredMatrix q_, k_, v_, output_;
  FloatTensor q_bias_, k_bias_, v_bias_, output_bias_;
  FloatTensor q_norm_, k_norm_;  // per head, before the rotation
  FloatTensor sinks_;            // one per head of queries
};

KeyValueCache& cache_of(const Piece& piece) { return static_cast<KeyValueCache&>(*piece.cache); }

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
    std::vector<const KeyValueCache*> caches;
    int64_t n_floats = 0;
    for (const Piece& piece : pieces) {
      const KeyValueCache& cache = cache_of(piece);
      if (caches.empty() || caches.back() != &cache) {
        caches.push_back(&cache);
        places.push_back(n_floats);
        n_floats += n_heads_ * (key_floats(h, cache) + packed_floats(h.value_dim, cache.n_tokens));
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
  static int64_t key_floats(const Hparams& h, const KeyValueCache& cache) { return packed_floats(cache.n_tokens, h.key_dim); }

  static PackedHead pack(const LayerContext& context, const KeyValueCache& cache, int64_t head, float* out) {
    const Hparams& h = context.hparams;
    const int64_t n_heads = context.layer.n_kv_heads;
    const Rows keys{cache.keys.data() + head * h.key_dim, cache.n_tokens, h.key_dim, n_heads * h.key_dim};
    const Rows values{cache.values.data() + head * h.value_dim, cache.n_tokens, h.value_dim, n_heads * h.value_dim};
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

// Queries, keys and values of all rows; keys and values go to the caches. Returns the position of the first token of each piece.
std::vector<int64_t> GroupedAttention::project(const LayerContext& context, const Rows& x, std::span<const Piece> pieces) const {
  const Hparams& h = context.hparams;
  const int64_t q_width = h.n_heads * h.key_dim, k_width = context.layer.n_kv_heads * h.key_dim,
                v_width = context.layer.n_kv_heads * h.value_dim;
  float* q = context.work.query.resize(x.n_rows * q_width);
  float* k = context.work.key.resize(x.n_rows * k_width);
  float* v = context.work.value.resize(x.n_rows * v_width);
  observe(context, {q_.info, k_.info, v_.info}, x, pieces);
  const PackedMatrix packed = pack_input(context.compute, x, context.work.packed_input);
  const std::span input(&packed, 1);
  const Product products[] = {{&q_, input, q, q_width}, {&k_, input, k, k_width}, {&v_, input, v, v_width}};
  multiply(context.compute, products);
  add_bias(q_bias_, x.n_rows, q, q_width);
  add_bias(k_bias_, x.n_rows, k, k_width);
  add_bias(v_bias_, x.n_rows, v, v_width);
  std::vector<int64_t> positions;
  for (const Piece& piece : pieces) {
    KeyValueCache& cache = cache_of(piece);
    positions.push_back(cache.n_tokens);
    const RopeTable& table = context.work.rope_table(context.rope, context.frequencies, cache.n_tokens, piece.n);
    float* keys = k + piece.first * k_width;
    const float* values = v + piece.first * v_width;
    prepare_heads(context, q_norm_, table, h.n_heads, piece.n, q + piece.first * q_width);
    prepare_heads(context, k_norm_, table, context.layer.n_kv_heads, piece.n, keys);
    cache.keys.insert(cache.keys.end(), keys, keys + piece.n * k_width);
    cache.values.insert(cache.values.end(), values, values + piece.n * v_width);
    cache.n_tokens += piece.n;
  }
  return positions;
}

void GroupedAttention::run(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out) const {
  const Hparams& h = context.hparams;
  const std::vector<int64_t> positions = project(context, x, pieces);
  const PackedCaches caches(context, pieces);
  const int64_t q_stride = h.n_heads * h.key_dim, o_stride = h.n_heads * h.value_dim;
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
                                 sinks_.empty() ? nullptr : sinks_.data() + task.head};
      attend(*context.compute.kernel, shape, {{q + row * q_stride + task.head * h.key_dim, n_queries, h.key_dim, q_stride}, position},
             std::span(&seen, 1), scratch, mixed + row * o_stride + task.head * h.value_dim, o_stride);
    }
  });
  const Rows rows{mixed, x.n_rows, o_stride, o_stride};
  observe(context, {output_.info}, rows, pieces);
  linear(context.compute, output_, pack_input(context.compute, rows, context.work.packed_mixed), out, h.hidden);
  add_bias(output_bias_, x.n_rows, out, h.hidden);
}

int64_t batch_floats(const Hparams& h, const LayerParams& layer, const MixerLoad& load) {
  const int64_t cached = layer.n_kv_heads * (h.key_dim + h.value_dim) * 2;  // and packed
  return load.batch * h.n_heads * (2 * h.key_dim + 2 * h.value_dim) + std::max(load.batch, load.longest) * cached;
}

}  // namespace

const MixerKind kGroupedAttention = {
    .kind = AttentionKind::kGrouped,
    .make = [] { return std::unique_ptr<Mixer>(std::make_unique<GroupedAttention>()); },
    .batch_floats = batch_floats,
    .thread_floats = [](const Hparams&, const LayerParams&, const MixerLoad& load) { return attend_floats(load.longest); },
};

}  // namespace quern
