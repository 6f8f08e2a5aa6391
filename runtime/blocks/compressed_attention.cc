// Hybrid attention of DeepSeek-V4: a window of recent tokens together with compressed entries (runtime/blocks/compressor.h), one key head
// that is also the value, sinks, and a grouped output projection. Layers of ratio 4 choose the entries each query may use through an
// indexer; the others use all of them. Entries that were not chosen are masked, not skipped: the sum over keys stays in one order.

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "formats/base/parallel.h"
#include "runtime/blocks/attention.h"
#include "runtime/blocks/compressor.h"
#include "runtime/blocks/mixer_kinds.h"
#include "runtime/math/vector_math.h"

namespace quern {
namespace {

constexpr int64_t kOverlapRatio = 4;  // entries overlap, and an indexer chooses among them

// What makes compressed entries of the tokens.
struct CompressorWeights {
  FloatTensor position_bias;  // [ratio, projection width]
  StoredMatrix kv, gate;      // [projection width, hidden]
  FloatTensor norm;           // [width]

  void list(const std::string& prefix, int64_t ratio, int64_t width, const Hparams& h, WeightList& weights) {
    const int64_t columns = ratio == kOverlapRatio ? 2 * width : width;
    weights.floats(prefix + "_ape.weight", {ratio, columns}, position_bias);
    weights.matrix(prefix + "_kv.weight", columns, h.hidden, kv);
    weights.matrix(prefix + "_gate.weight", columns, h.hidden, gate);
    weights.floats(prefix + "_norm.weight", {width}, norm);
  }

  // Adds the tokens x to a sequence's entries of `width` channels.
  void extend(const LayerContext& context, int64_t width, const PackedMatrix& x, std::optional<Compressor>& entries) const {
    const int64_t ratio = context.layer.compress_ratio;
    if (!entries) entries.emplace(CompressorShape{ratio, width, ratio == kOverlapRatio, context.hparams.norm_eps});
    entries->append(linear(context.compute, kv, x), linear(context.compute, gate, x), position_bias, norm, context.rope,
                    context.frequencies);
  }
};

// One head of keys, which are the values as well: [n_tokens, key_dim].
struct CompressedCache final : LayerCache {
  void clear() noexcept override {
    n_tokens = 0;
    keys.clear();
    compressed.reset();
    indexed.reset();
  }

  std::vector<float> keys;
  std::optional<Compressor> compressed;
  std::optional<Compressor> indexed;
};

// Which entries each query of the tile may attend to, per panel [n_entries][16].
using EntryMasks = std::vector<std::vector<uint8_t>>;

EntryMasks all_visible(const Compressor& entries, int64_t first, int64_t n) {
  EntryMasks masks;
  for (int64_t token = 0; token < n; token += kPanelWidth) {
    std::vector<uint8_t>& mask = masks.emplace_back(static_cast<size_t>(entries.n_entries() * kPanelWidth), uint8_t{0});
    for (int64_t lane = 0; lane < std::min(kPanelWidth, n - token); ++lane) {
      for (int64_t b = 0; b < entries.n_visible(first + token + lane); ++b) mask[static_cast<size_t>(b * kPanelWidth + lane)] = 1;
    }
  }
  return masks;
}

class CompressedAttention final : public Mixer {
 public:
  void list(const Hparams& h, const LayerParams& layer, WeightList& weights) override;
  std::unique_ptr<LayerCache> make_cache() const override { return std::make_unique<CompressedCache>(); }
  void run(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out) const override {
    for (const Piece& piece : pieces) {
      run_piece(context, x.slice(piece.first, piece.n), static_cast<CompressedCache&>(*piece.cache),
                out + piece.first * context.hparams.hidden);
    }
  }

 private:
  // The tile's tokens, as they are multiplied.
  struct Tile {
    PackedMatrix x;         // [n, hidden]
    PackedMatrix q_latent;  // [n, q_rank]
    const RopeTable& table;
    int64_t first;  // position of its first token
  };

  void run_piece(const LayerContext& context, const Rows& x, CompressedCache& cache, float* out) const;
  std::vector<float> query_latents(const LayerContext& context, const PackedMatrix& x) const;
  std::vector<float> queries(const LayerContext& context, const Tile& tile) const;
  void append_keys(const LayerContext& context, const Tile& tile, CompressedCache& cache) const;
  EntryMasks visible_entries(const LayerContext& context, const Tile& tile, CompressedCache& cache) const;
  void apply_indexer(const LayerContext& context, const Tile& tile, CompressedCache& cache, EntryMasks& masks) const;
  std::vector<float> attend_heads(const LayerContext& context, const std::vector<float>& q, const CompressedCache& cache,
                                  const EntryMasks& masks) const;
  void project_output(const LayerContext& context, const std::vector<float>& mixed, int64_t n, float* out) const;

  StoredMatrix q_a_, q_b_;  // [q_rank, hidden], [n_heads * key_dim, q_rank]
  FloatTensor q_a_norm_;
  StoredMatrix kv_;  // [key_dim, hidden]
  FloatTensor kv_norm_;
  FloatTensor sinks_;                 // [n_heads]
  StoredMatrix output_a_, output_b_;  // [groups * output_rank, heads of a group * key_dim], [hidden, groups * output_rank]
  CompressorWeights compressor_;      // layers with compressed entries
  StoredMatrix index_q_b_;            // layers with an indexer: [n_indexer_heads * indexer_dim, q_rank]
  StoredMatrix index_weights_;        // [n_indexer_heads, hidden]
  CompressorWeights index_compressor_;
};

void CompressedAttention::list(const Hparams& h, const LayerParams& layer, WeightList& weights) {
  weights.matrix("attn_q_a.weight", h.q_rank, h.hidden, q_a_);
  weights.floats("attn_q_a_norm.weight", {h.q_rank}, q_a_norm_);
  weights.matrix("attn_q_b.weight", h.n_heads * h.key_dim, h.q_rank, q_b_);
  weights.matrix("attn_kv.weight", h.key_dim, h.hidden, kv_);
  weights.floats("attn_kv_a_norm.weight", {h.key_dim}, kv_norm_);
  weights.floats("attn_sinks.weight", {h.n_heads}, sinks_);
  weights.matrix("attn_output_a.weight", h.n_output_groups * h.output_rank, h.n_heads / h.n_output_groups * h.key_dim, output_a_);
  weights.matrix("attn_output_b.weight", h.hidden, h.n_output_groups * h.output_rank, output_b_);
  if (layer.compress_ratio == 0) return;
  compressor_.list("attn_compressor", layer.compress_ratio, h.key_dim, h, weights);
  if (layer.compress_ratio != kOverlapRatio) return;
  weights.matrix("indexer.attn_q_b.weight", h.n_indexer_heads * h.indexer_dim, h.q_rank, index_q_b_);
  weights.matrix("indexer.proj.weight", h.n_indexer_heads, h.hidden, index_weights_);
  index_compressor_.list("indexer_compressor", layer.compress_ratio, h.indexer_dim, h, weights);
}

// Scores of the first n_entries for up to 16 queries: sum over heads of max(0, <q, k>) * weight, heads ascending, in double.
// scores: [n_queries, n_entries].
void index_scores(const LayerContext& context, PackedMatrix keys, const Rows& q, const float* head_weights, int64_t n_entries,
                  FloatBuffer& scratch, std::vector<double>& scores) {
  const Hparams& h = context.hparams;
  const ProductKernel& kernel = *context.compute.kernel;
  const int64_t d = h.indexer_dim;
  scores.assign(static_cast<size_t>(q.n_rows * n_entries), 0.0);
  float* packed = scratch.resize(packed_floats(kPanelWidth, d) + kPanelWidth * n_entries);
  float* products = packed + packed_floats(kPanelWidth, d);
  const double scale = 1.0 / std::sqrt(static_cast<double>(d * h.n_indexer_heads));
  keys.n = n_entries;
  for (int64_t head = 0; head < h.n_indexer_heads; ++head) {
    kernel.multiply(kernel.pack_rows({q.data + head * d, q.n_rows, d, q.stride}, packed), keys, d, products, n_entries);
    for (int64_t i = 0; i < q.n_rows; ++i) {
      const double weight = static_cast<double>(head_weights[i * h.n_indexer_heads + head]) * scale;
      for (int64_t b = i * n_entries; b < (i + 1) * n_entries; ++b) {
        if (products[b] > 0.0f) scores[static_cast<size_t>(b)] += static_cast<double>(products[b]) * weight;
      }
    }
  }
}

// Restricts the masks of queries that see more than top_k entries to the best ones.
void CompressedAttention::apply_indexer(const LayerContext& context, const Tile& tile, CompressedCache& cache, EntryMasks& masks) const {
  const Hparams& h = context.hparams;
  index_compressor_.extend(context, h.indexer_dim, tile.x, cache.indexed);
  const int64_t n = tile.x.n, first = tile.first, d = h.indexer_dim, q_stride = h.n_indexer_heads * d;
  if (cache.indexed->n_visible(first + n - 1) <= h.indexer_top_k) return;
  std::vector<float> q = linear(context.compute, index_q_b_, tile.q_latent);                // [n, n_indexer_heads, d]
  const std::vector<float> head_weights = linear(context.compute, index_weights_, tile.x);  // [n, n_indexer_heads]
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < h.n_indexer_heads; ++head) {
      tile.table.rotate(q.data() + t * q_stride + (head + 1) * d - tile.table.n_dims(), t);
    }
  }
  const Rows entries{cache.indexed->entries(), cache.indexed->n_entries(), d, d};
  FloatBuffer memory;
  const PackedMatrix keys = context.compute.kernel->pack_weights(entries, memory.resize(packed_floats(entries.n_rows, d)));
  parallel_for(static_cast<int64_t>(masks.size()), 1, [&](int64_t begin, int64_t end) {
    FloatBuffer scratch;
    std::vector<double> scores;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t token = p * kPanelWidth, n_queries = std::min(kPanelWidth, n - token);
      const int64_t n_entries = cache.indexed->n_visible(first + token + n_queries - 1);
      if (n_entries <= h.indexer_top_k) continue;
      index_scores(context, keys, {q.data() + token * q_stride, n_queries, d, q_stride}, head_weights.data() + token * h.n_indexer_heads,
                   n_entries, scratch, scores);
      for (int64_t lane = 0; lane < n_queries; ++lane) {
        const auto n_visible = static_cast<size_t>(cache.indexed->n_visible(first + token + lane));
        keep_best(std::span(scores).subspan(static_cast<size_t>(lane * n_entries), n_visible), h.indexer_top_k,
                  masks[static_cast<size_t>(p)].data() + lane);
      }
    }
  });
}

// u_g = output_a[g] o_g per group of heads, then output_b over all groups.
void CompressedAttention::project_output(const LayerContext& context, const std::vector<float>& mixed, int64_t n, float* out) const {
  const Hparams& h = context.hparams;
  const int64_t stride = h.n_heads * h.key_dim, group_width = stride / h.n_output_groups;
  const int64_t width = h.n_output_groups * h.output_rank;
  std::vector<FloatBuffer> memory(static_cast<size_t>(h.n_output_groups));
  std::vector<PackedMatrix> groups;
  for (int64_t g = 0; g < h.n_output_groups; ++g) {
    const Rows rows{mixed.data() + g * group_width, n, group_width, stride};
    observe(context, {output_a_.info}, rows, g);
    groups.push_back(pack_input(context.compute, rows, memory[static_cast<size_t>(g)]));
  }
  std::vector<float> low(static_cast<size_t>(n * width));  // [n, n_output_groups, output_rank]
  const Product product{&output_a_, groups, low.data(), width};
  multiply(context.compute, std::span(&product, 1));
  const Rows rows{low.data(), n, width, width};
  observe(context, {output_b_.info}, rows);
  linear(context.compute, output_b_, rows, out, h.hidden);
}

// [n, q_rank], normalised.
std::vector<float> CompressedAttention::query_latents(const LayerContext& context, const PackedMatrix& x) const {
  const Hparams& h = context.hparams;
  std::vector<float> latents = linear(context.compute, q_a_, x);
  for (int64_t t = 0; t < x.n; ++t) {
    float* row = latents.data() + t * h.q_rank;
    rms_norm(row, q_a_norm_.data(), h.q_rank, h.norm_eps, row);
  }
  return latents;
}

// [n, n_heads, key_dim], every head normalised and its last dimensions rotated.
std::vector<float> CompressedAttention::queries(const LayerContext& context, const Tile& tile) const {
  const Hparams& h = context.hparams;
  const int64_t d = h.key_dim, tail = d - context.rope.n_dims;
  std::vector<float> q = linear(context.compute, q_b_, tile.q_latent);
  parallel_for(tile.x.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < h.n_heads; ++head) {
        float* row = q.data() + (t * h.n_heads + head) * d;
        rms_norm(row, nullptr, d, h.norm_eps, row);
        tile.table.rotate(row + tail, t);
      }
    }
  });
  return q;
}

void CompressedAttention::append_keys(const LayerContext& context, const Tile& tile, CompressedCache& cache) const {
  const int64_t d = context.hparams.key_dim, tail = d - context.rope.n_dims;
  std::vector<float> kv = linear(context.compute, kv_, tile.x);  // [n, key_dim]
  parallel_for(tile.x.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = kv.data() + t * d;
      rms_norm(row, kv_norm_.data(), d, context.hparams.norm_eps, row);
      tile.table.rotate(row + tail, t);
    }
  });
  cache.keys.insert(cache.keys.end(), kv.begin(), kv.end());
  cache.n_tokens += tile.x.n;
}

// Empty in layers without compressed entries.
EntryMasks CompressedAttention::visible_entries(const LayerContext& context, const Tile& tile, CompressedCache& cache) const {
  if (context.layer.compress_ratio == 0) return {};
  compressor_.extend(context, context.hparams.key_dim, tile.x, cache.compressed);
  EntryMasks masks = all_visible(*cache.compressed, tile.first, tile.x.n);
  if (context.layer.compress_ratio == kOverlapRatio) apply_indexer(context, tile, cache, masks);
  return masks;
}

// [n, n_heads, key_dim] for the last n tokens of the cache, whose queries are q. The one key head is the value as well, and serves all
// heads of queries.
std::vector<float> CompressedAttention::attend_heads(const LayerContext& context, const std::vector<float>& q, const CompressedCache& cache,
                                                     const EntryMasks& masks) const {
  const Hparams& h = context.hparams;
  const ProductKernel& kernel = *context.compute.kernel;
  const int64_t d = h.key_dim, q_stride = h.n_heads * d, n = static_cast<int64_t>(q.size()) / q_stride, first = cache.n_tokens - n;
  const Rows keys{cache.keys.data(), cache.n_tokens, d, d};
  const Rows entries = masks.empty() ? Rows{nullptr, 0, d, d} : Rows{cache.compressed->entries(), cache.compressed->n_entries(), d, d};
  const int64_t keys_floats = packed_floats(keys.n_rows, d), entries_floats = packed_floats(entries.n_rows, d);
  float* packed =
      context.work.packed_keys.resize(keys_floats + packed_floats(d, keys.n_rows) + entries_floats + packed_floats(d, entries.n_rows));
  float* packed_entries = packed + keys_floats + packed_floats(d, keys.n_rows);
  const KeySegment all_keys{.keys = kernel.pack_weights(keys, packed), .values = kernel.pack_columns(keys, packed + keys_floats)};
  const KeySegment all_entries{.keys = kernel.pack_weights(entries, packed_entries),
                               .values = kernel.pack_columns(entries, packed_entries + entries_floats)};

  std::vector<float> mixed(q.size());
  const int64_t n_panels = (n + kPanelWidth - 1) / kPanelWidth;
  parallel_for(h.n_heads * n_panels, 1, [&](int64_t begin, int64_t end) {
    FloatBuffer scratch;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task / n_panels, token = task % n_panels * kPanelWidth, n_queries = std::min(kPanelWidth, n - token);
      std::vector<KeySegment> segments = {causal_segment(all_keys, cache.n_tokens, context.layer.window, first + token, n_queries)};
      if (!masks.empty()) {
        KeySegment& seen = segments.emplace_back(all_entries);
        seen.count = cache.compressed->n_visible(first + token + n_queries - 1);
        seen.visible = masks[static_cast<size_t>(token / kPanelWidth)].data();
      }
      const int64_t at = token * q_stride + head * d;
      attend(kernel, {d, d, context.layer.attention_scale, sinks_.data() + head}, {{q.data() + at, n_queries, d, q_stride}, first + token},
             segments, scratch, mixed.data() + at, q_stride);
    }
  });
  return mixed;
}

void CompressedAttention::run_piece(const LayerContext& context, const Rows& x, CompressedCache& cache, float* out) const {
  const Hparams& h = context.hparams;
  const int64_t n = x.n_rows, first = cache.n_tokens, d = h.key_dim, tail = d - context.rope.n_dims;
  observe(context,
          {q_a_.info, kv_.info, compressor_.kv.info, compressor_.gate.info, index_weights_.info, index_compressor_.kv.info,
           index_compressor_.gate.info},
          x);
  const PackedMatrix packed_x = pack_input(context.compute, x, context.work.packed_input);
  const std::vector<float> q_latents = query_latents(context, packed_x);
  const Rows latent_rows{q_latents.data(), n, h.q_rank, h.q_rank};
  observe(context, {q_b_.info, index_q_b_.info}, latent_rows);
  const Tile tile{packed_x, pack_input(context.compute, latent_rows, context.work.packed_mixed),
                  context.work.rope_table(context.rope, context.frequencies, first, n), first};
  const std::vector<float> q = queries(context, tile);
  append_keys(context, tile, cache);
  const EntryMasks masks = visible_entries(context, tile, cache);
  std::vector<float> mixed = attend_heads(context, q, cache, masks);
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < h.n_heads; ++head) tile.table.rotate_back(mixed.data() + (t * h.n_heads + head) * d + tail, t);
  }
  project_output(context, mixed, n, out);
}

int64_t batch_floats(const Hparams& h, const LayerParams&, const MixerLoad& load) {
  const int64_t cached = (h.key_dim + h.value_dim) * 2;  // of the one head, and packed
  return load.batch * h.n_heads * (2 * h.key_dim + 2 * h.value_dim) + std::max(load.batch, load.longest) * cached;
}

}  // namespace

const MixerKind kCompressedAttention = {
    .kind = AttentionKind::kCompressed,
    .make = [] { return std::unique_ptr<Mixer>(std::make_unique<CompressedAttention>()); },
    .batch_floats = batch_floats,
    .thread_floats = [](const Hparams&, const LayerParams&, const MixerLoad& load) { return attend_floats(load.longest); },
};

}  // namespace quern
