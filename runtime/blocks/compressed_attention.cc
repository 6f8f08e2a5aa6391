// Hybrid attention of DeepSeek-V4: a window of recent tokens together with compressed entries (runtime/blocks/compressor.h), one key head
// that is also the value, sinks, and a grouped output projection. Layers of ratio 4 choose the entries each query may use through an
// indexer; the others use all of them. Entries that were not chosen are masked, not skipped: the sum over keys stays in one order.

#include <algorithm>
#include <cmath>

#include "formats/base/parallel.h"
#include "runtime/blocks/attention.h"
#include "runtime/blocks/layer.h"
#include "runtime/math/vector_math.h"

namespace quern {
namespace {

std::vector<float> project(const LayerContext& context, std::string_view name, const PackedMatrix& x) {
  const StoredMatrix& w = context.weights.matrix(name);
  std::vector<float> y(static_cast<size_t>(x.n * w.n_rows));
  linear(context.compute, w, x, y.data(), w.n_rows);
  return y;
}

void extend(const LayerContext& context, const std::string& prefix, int64_t width, const PackedMatrix& x,
            std::optional<Compressor>& entries) {
  const int64_t ratio = context.layer.compress_ratio;
  if (!entries) entries.emplace(CompressorShape{ratio, width, ratio == 4, context.hparams.norm_eps});
  entries->append(project(context, prefix + "_kv.weight", x), project(context, prefix + "_gate.weight", x),
                  context.weights.value(prefix + "_ape.weight"), context.weights.value(prefix + "_norm.weight"), context.rope,
                  context.frequencies);
}

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
void apply_indexer(const LayerContext& context, const PackedMatrix& x, const PackedMatrix& q_latent, const RopeTable& table, int64_t first,
                   LayerCache& cache, EntryMasks& masks) {
  const Hparams& h = context.hparams;
  extend(context, "indexer_compressor", h.indexer_dim, x, cache.indexed);
  const int64_t n = x.n, d = h.indexer_dim, q_stride = h.n_indexer_heads * d;
  if (cache.indexed->n_visible(first + n - 1) <= h.indexer_top_k) return;
  std::vector<float> q = project(context, "indexer.attn_q_b.weight", q_latent);
  const std::vector<float> head_weights = project(context, "indexer.proj.weight", x);
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < h.n_indexer_heads; ++head) table.rotate(q.data() + t * q_stride + (head + 1) * d - table.n_dims(), t);
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
void project_output(const LayerContext& context, const std::vector<float>& mixed, int64_t n, float* out) {
  const Hparams& h = context.hparams;
  const int64_t stride = h.n_heads * h.key_dim, group_width = stride / h.n_output_groups;
  const int64_t width = h.n_output_groups * h.output_rank;
  std::vector<FloatBuffer> memory(static_cast<size_t>(h.n_output_groups));
  std::vector<PackedMatrix> groups;
  for (int64_t g = 0; g < h.n_output_groups; ++g) {
    const Rows rows{mixed.data() + g * group_width, n, group_width, stride};
    observe_block(context, {"attn_output_a.weight"}, rows, g);
    groups.push_back(pack_input(context.compute, rows, memory[static_cast<size_t>(g)]));
  }
  std::vector<float> low(static_cast<size_t>(n * width));
  const Product product{&context.weights.matrix("attn_output_a.weight"), groups, low.data(), width};
  multiply(context.compute, std::span(&product, 1));
  const Rows rows{low.data(), n, width, width};
  observe_block(context, {"attn_output_b.weight"}, rows);
  linear(context.compute, context.weights.matrix("attn_output_b.weight"), rows, out, h.hidden);
}

}  // namespace

void compressed_attention(const LayerContext& context, const Rows& x, LayerCache& cache, float* out) {
  const Hparams& h = context.hparams;
  const ProductKernel& kernel = *context.compute.kernel;
  const int64_t n = x.n_rows, first = cache.n_tokens, d = h.key_dim, q_stride = h.n_heads * d, tail = d - context.rope.n_dims;
  const RopeTable& table = context.work.rope_table(context.rope, context.frequencies, first, n);

  observe_block(context,
                {"attn_q_a.weight", "attn_kv.weight", "attn_compressor_kv.weight", "attn_compressor_gate.weight", "indexer.proj.weight",
                 "indexer_compressor_kv.weight", "indexer_compressor_gate.weight"},
                x);
  const PackedMatrix packed_x = pack_input(context.compute, x, context.work.packed_input);
  std::vector<float> q_latent = project(context, "attn_q_a.weight", packed_x);
  for (int64_t t = 0; t < n; ++t) {
    float* row = q_latent.data() + t * h.q_rank;
    rms_norm(row, context.weights.value("attn_q_a_norm.weight").data(), h.q_rank, h.norm_eps, row);
  }
  const Rows latent_rows{q_latent.data(), n, h.q_rank, h.q_rank};
  observe_block(context, {"attn_q_b.weight", "indexer.attn_q_b.weight"}, latent_rows);
  const PackedMatrix packed_latent = pack_input(context.compute, latent_rows, context.work.packed_mixed);
  std::vector<float> q = project(context, "attn_q_b.weight", packed_latent);
  std::vector<float> kv = project(context, "attn_kv.weight", packed_x);
  parallel_for(n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < h.n_heads; ++head) {
        float* row = q.data() + t * q_stride + head * d;
        rms_norm(row, nullptr, d, h.norm_eps, row);
        table.rotate(row + tail, t);
      }
      float* row = kv.data() + t * d;
      rms_norm(row, context.weights.value("attn_kv_a_norm.weight").data(), d, h.norm_eps, row);
      table.rotate(row + tail, t);
    }
  });
  cache.keys.insert(cache.keys.end(), kv.begin(), kv.end());
  cache.n_tokens += n;

  EntryMasks masks;
  if (context.layer.compress_ratio != 0) {
    extend(context, "attn_compressor", d, packed_x, cache.compressed);
    masks = all_visible(*cache.compressed, first, n);
    if (context.layer.compress_ratio == 4) apply_indexer(context, packed_x, packed_latent, table, first, cache, masks);
  }

  // The one key head is the value as well, and serves all heads of queries.
  const Rows keys{cache.keys.data(), cache.n_tokens, d, d};
  const Rows entries = masks.empty() ? Rows{nullptr, 0, d, d} : Rows{cache.compressed->entries(), cache.compressed->n_entries(), d, d};
  const int64_t keys_floats = packed_floats(keys.n_rows, d), entries_floats = packed_floats(entries.n_rows, d);
  float* packed =
      context.work.packed_keys.resize(keys_floats + packed_floats(d, keys.n_rows) + entries_floats + packed_floats(d, entries.n_rows));
  float* packed_entries = packed + keys_floats + packed_floats(d, keys.n_rows);
  const KeySegment all_keys{.keys = kernel.pack_weights(keys, packed), .values = kernel.pack_columns(keys, packed + keys_floats)};
  const KeySegment all_entries{.keys = kernel.pack_weights(entries, packed_entries),
                               .values = kernel.pack_columns(entries, packed_entries + entries_floats)};

  const std::span<const float> sinks = context.weights.value("attn_sinks.weight");
  std::vector<float> mixed(static_cast<size_t>(n * q_stride));
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
      attend(kernel, {d, d, context.layer.attention_scale, &sinks[static_cast<size_t>(head)]},
             {{q.data() + at, n_queries, d, q_stride}, first + token}, segments, scratch, mixed.data() + at, q_stride);
    }
  });
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < h.n_heads; ++head) table.rotate_back(mixed.data() + t * q_stride + head * d + tail, t);
  }
  project_output(context, mixed, n, out);
}

}  // namespace quern
