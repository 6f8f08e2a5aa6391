// Hybrid attention of DeepSeek-V4: a window of recent tokens together with compressed entries (runtime/compressor.h), one key head
// that is also the value, sinks, and a grouped output projection. Layers of ratio 4 choose the entries each query may use through an
// indexer; the others use all of them. Entries that were not chosen are masked, not skipped: the sum over keys stays in one order.

#include <algorithm>
#include <cmath>

#include "formats/base/parallel.h"
#include "runtime/attention.h"
#include "runtime/models/layer.h"
#include "runtime/norm.h"

namespace quern {
namespace {

std::vector<float> project(const LayerContext& context, std::string_view name, const PackedRows& x) {
  const StoredMatrix& w = context.weights.matrix(name);
  std::vector<float> y(static_cast<size_t>(x.n_rows() * w.n_rows));
  linear(context.compute, w, x, y.data(), w.n_rows);
  return y;
}

void extend(const LayerContext& context, const std::string& prefix, int64_t width, const PackedRows& x,
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

// Scores of all entries for the 16 queries of a panel: sum over heads of max(0, <q, k>) * weight, heads ascending, in double.
void index_scores(const LayerContext& context, const Compressor& keys, const float* q, const float* head_weights, int64_t n_queries,
                  int64_t n_entries, std::vector<float>& scratch, std::vector<double>& scores) {
  const Hparams& h = context.hparams;
  const int64_t d = h.indexer_dim, q_stride = h.n_indexer_heads * d;
  scores.assign(static_cast<size_t>(n_entries * kPanelWidth), 0.0);
  scratch.resize(static_cast<size_t>((d + n_entries) * kPanelWidth));
  float* products = scratch.data() + d * kPanelWidth;
  const double scale = 1.0 / std::sqrt(static_cast<double>(d * h.n_indexer_heads));
  for (int64_t head = 0; head < h.n_indexer_heads; ++head) {
    pack_panel(q + head * d, n_queries, d, q_stride, scratch.data());
    context.compute.product({keys.entries(), n_entries, d, 1}, scratch.data(), d, products);
    for (int64_t i = 0; i < n_entries * kPanelWidth; ++i) {
      const int64_t lane = i % kPanelWidth;
      if (lane >= n_queries || products[i] <= 0.0f) continue;
      const double weight = static_cast<double>(head_weights[lane * h.n_indexer_heads + head]) * scale;
      scores[static_cast<size_t>(i)] += static_cast<double>(products[i]) * weight;
    }
  }
}

// Restricts the masks of queries that see more than top_k entries to the best ones.
void apply_indexer(const LayerContext& context, const PackedRows& x, const PackedRows& q_latent, const RopeTable& table, int64_t first,
                   LayerCache& cache, EntryMasks& masks) {
  const Hparams& h = context.hparams;
  extend(context, "indexer_compressor", h.indexer_dim, x, cache.indexed);
  const int64_t n = x.n_rows(), d = h.indexer_dim, q_stride = h.n_indexer_heads * d;
  if (cache.indexed->n_visible(first + n - 1) <= h.indexer_top_k) return;
  std::vector<float> q = project(context, "indexer.attn_q_b.weight", q_latent);
  const std::vector<float> head_weights = project(context, "indexer.proj.weight", x);
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < h.n_indexer_heads; ++head) table.rotate(q.data() + t * q_stride + (head + 1) * d - table.n_dims(), t);
  }
  parallel_for(static_cast<int64_t>(masks.size()), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    std::vector<double> scores, of_query;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t token = p * kPanelWidth, n_queries = std::min(kPanelWidth, n - token);
      const int64_t n_entries = cache.indexed->n_visible(first + token + n_queries - 1);
      if (n_entries <= h.indexer_top_k) continue;
      index_scores(context, *cache.indexed, q.data() + token * q_stride, head_weights.data() + token * h.n_indexer_heads, n_queries,
                   n_entries, scratch, scores);
      for (int64_t lane = 0; lane < n_queries; ++lane) {
        of_query.clear();
        for (int64_t b = 0; b < cache.indexed->n_visible(first + token + lane); ++b) {
          of_query.push_back(scores[static_cast<size_t>(b * kPanelWidth + lane)]);
        }
        keep_best(of_query, h.indexer_top_k, masks[static_cast<size_t>(p)].data() + lane);
      }
    }
  });
}

// u_g = output_a[g] o_g per group of heads, then output_b over all groups.
void project_output(const LayerContext& context, const std::vector<float>& mixed, int64_t n, float* out) {
  const Hparams& h = context.hparams;
  const int64_t stride = h.n_heads * h.key_dim, group_width = stride / h.n_output_groups;
  std::vector<PackedRows> groups;
  for (int64_t g = 0; g < h.n_output_groups; ++g) groups.emplace_back(mixed.data() + g * group_width, n, group_width, stride);
  const int64_t width = h.n_output_groups * h.output_rank;
  std::vector<float> low(static_cast<size_t>(n * width));
  for (size_t g = 0; g < groups.size(); ++g) observe_block(context, {"attn_output_a.weight"}, groups[g], static_cast<int64_t>(g));
  grouped_linear(context.compute, context.weights.matrix("attn_output_a.weight"), groups, low.data(), width);
  const PackedRows packed(low.data(), n, width, width);
  observe_block(context, {"attn_output_b.weight"}, packed);
  linear(context.compute, context.weights.matrix("attn_output_b.weight"), packed, out, h.hidden);
}

}  // namespace

void compressed_attention(const LayerContext& context, const PackedRows& x, LayerCache& cache, float* out) {
  const Hparams& h = context.hparams;
  const int64_t n = x.n_rows(), first = cache.n_tokens, d = h.key_dim, q_stride = h.n_heads * d, tail = d - context.rope.n_dims;
  const RopeTable table(context.rope, context.frequencies, first, n);

  observe_block(context,
                {"attn_q_a.weight", "attn_kv.weight", "attn_compressor_kv.weight", "attn_compressor_gate.weight", "indexer.proj.weight",
                 "indexer_compressor_kv.weight", "indexer_compressor_gate.weight"},
                x);
  std::vector<float> q_latent = project(context, "attn_q_a.weight", x);
  for (int64_t t = 0; t < n; ++t) {
    float* row = q_latent.data() + t * h.q_rank;
    rms_norm(row, context.weights.value("attn_q_a_norm.weight").data(), h.q_rank, h.norm_eps, row);
  }
  const PackedRows packed_latent(q_latent.data(), n, h.q_rank, h.q_rank);
  observe_block(context, {"attn_q_b.weight", "indexer.attn_q_b.weight"}, packed_latent);
  std::vector<float> q = project(context, "attn_q_b.weight", packed_latent);
  std::vector<float> kv = project(context, "attn_kv.weight", x);
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < h.n_heads; ++head) {
      float* row = q.data() + t * q_stride + head * d;
      rms_norm(row, nullptr, d, h.norm_eps, row);
      table.rotate(row + tail, t);
    }
    float* row = kv.data() + t * d;
    rms_norm(row, context.weights.value("attn_kv_a_norm.weight").data(), d, h.norm_eps, row);
    table.rotate(row + tail, t);
  }
  cache.keys.insert(cache.keys.end(), kv.begin(), kv.end());
  cache.n_tokens += n;

  EntryMasks masks;
  if (context.layer.compress_ratio != 0) {
    extend(context, "attn_compressor", d, x, cache.compressed);
    masks = all_visible(*cache.compressed, first, n);
    if (context.layer.compress_ratio == 4) apply_indexer(context, x, packed_latent, table, first, cache, masks);
  }

  const std::span<const float> sinks = context.weights.value("attn_sinks.weight");
  std::vector<float> mixed(static_cast<size_t>(n * q_stride));
  const int64_t n_panels = (n + kPanelWidth - 1) / kPanelWidth;
  parallel_for(h.n_heads * n_panels, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> panel(static_cast<size_t>(d * kPanelWidth)), result(static_cast<size_t>(d * kPanelWidth)), scratch;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task / n_panels, token = task % n_panels * kPanelWidth, n_queries = std::min(kPanelWidth, n - token);
      pack_panel(q.data() + token * q_stride + head * d, n_queries, d, q_stride, panel.data());
      const KeySegment run{.keys = cache.keys.data(), .key_stride = d, .values = cache.keys.data(), .value_stride = d};
      std::vector<KeySegment> segments = {causal_segment(run, cache.n_tokens, context.layer.window, first + token, n_queries)};
      if (!masks.empty()) {
        const int64_t n_entries = cache.compressed->n_visible(first + token + n_queries - 1);
        segments.push_back({.keys = cache.compressed->entries(),
                            .key_stride = d,
                            .values = cache.compressed->entries(),
                            .value_stride = d,
                            .count = n_entries,
                            .visible = masks[static_cast<size_t>(token / kPanelWidth)].data()});
      }
      attend(context.compute.product, {d, d, context.layer.attention_scale, &sinks[static_cast<size_t>(head)]},
             {panel.data(), n_queries, first + token}, segments, scratch, result.data());
      unpack_panel(result.data(), n_queries, d, mixed.data() + token * q_stride + head * d, q_stride);
    }
  });
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t head = 0; head < h.n_heads; ++head) table.rotate_back(mixed.data() + t * q_stride + head * d + tail, t);
  }
  project_output(context, mixed, n, out);
}

}  // namespace quern
