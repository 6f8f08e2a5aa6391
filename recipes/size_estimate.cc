#include "recipes/size_estimate.h"

#include <algorithm>

#include "formats/arch/key_reader.h"
#include "formats/base/checked.h"
#include "formats/base/error.h"

// Sources of the cache layouts: llama.cpp src/llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-kv-cache-dsv4.cpp.

namespace quern {
namespace {

constexpr int64_t kHalf = 2;         // bytes of an F16 cache element
constexpr int64_t kSingle = 4;       // bytes of a float
constexpr int64_t kBatch = 512;      // tokens per batch
constexpr int64_t kCellGroup = 256;  // cells are allocated in groups
constexpr int64_t kOverlapRatio = 4;

int64_t padded_cells(int64_t n) { return (n + kCellGroup - 1) / kCellGroup * kCellGroup; }

uint64_t product(int64_t a, int64_t b, int64_t c = 1) {
  const auto size = [](int64_t x) { return static_cast<uint64_t>(std::max<int64_t>(x, 0)); };
  return checked_mul(checked_mul(size(a), size(b), "size of the cache"), size(c), "size of the cache");
}

void add(CacheCost& cost, uint64_t size, uint64_t read) {
  cost.size_bytes = checked_add(cost.size_bytes, size, "size of the cache");
  cost.read_bytes = checked_add(cost.read_bytes, read, "size of the cache");
}

int64_t window_cells(int64_t n_context, int64_t window) { return padded_cells(std::min(padded_cells(n_context), window + kBatch)); }

// Width of the keys of a head as llama.cpp attends: MLA over the latent with its rotated part. Files that store kv_b whole, as was usual
// once, only say the width of an expanded head.
int64_t key_width(const Hparams& h) { return h.kv_rank > 0 && h.split_kv_b ? h.kv_rank + h.ropes[0].n_dims : h.key_dim; }

// One latent per token, which is key and value at once.
void add_latent(const Hparams& h, int64_t n_context, CacheCost& cost) {
  add(cost, product(padded_cells(n_context), key_width(h), kHalf), product(n_context, key_width(h), kHalf));
}

void add_grouped(const Hparams& h, const LayerParams& layer, int64_t n_context, CacheCost& cost) {
  const int64_t values = (h.key_dim + h.value_dim) * layer.n_kv_heads;
  const bool windowed = layer.window > 0;
  const int64_t cells = windowed ? window_cells(n_context, layer.window) : padded_cells(n_context);
  add(cost, product(cells, values, kHalf), product(windowed ? std::min(n_context, layer.window) : n_context, values, kHalf));
}

// Rolling state of a compressor: sums and scores in F32, of the tokens that the next entry is made of.
uint64_t compressor_state_bytes(int64_t width, int64_t ratio) {
  const int64_t halves = ratio == kOverlapRatio ? 2 : 1;
  return product(2 * halves * width, halves * ratio, kSingle);
}

// DeepSeek-V4: every layer has a window; compressed layers one entry per `ratio` tokens, which overlapping ones choose among by the keys of
// an indexer.
void add_compressed(const Hparams& h, const LayerParams& layer, int64_t n_context, CacheCost& cost) {
  add(cost, product(window_cells(n_context, layer.window), h.key_dim, kHalf), product(std::min(n_context, layer.window), h.key_dim, kHalf));
  const int64_t ratio = layer.compress_ratio;
  if (ratio == 0) return;
  const int64_t entries = std::max<int64_t>((n_context + ratio - 1) / ratio, 1);
  const bool indexed = ratio == kOverlapRatio;
  add(cost, product(padded_cells(entries), h.key_dim, kHalf),
      product(indexed ? std::min(entries, h.indexer_top_k) : entries, h.key_dim, kHalf));
  add(cost, compressor_state_bytes(h.key_dim, ratio), 0);
  if (!indexed) return;
  add(cost, product(padded_cells(entries), h.indexer_dim, kHalf), product(entries, h.indexer_dim, kHalf));
  add(cost, compressor_state_bytes(h.indexer_dim, ratio), 0);
}

bool is_compressed(const LayerParams& layer) { return layer.attention == AttentionKind::kCompressed; }

}  // namespace

WeightCost weight_cost(const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types) {
  QUERN_CHECK(tensors.size() == types.size());
  const Hparams h = outline_hparams(metadata);
  const bool tied = std::none_of(tensors.begin(), tensors.end(), [](const LogicalTensor& t) { return t.role == Role::kOutput; });
  const auto used = static_cast<uint64_t>(h.routing.n_used);
  WeightCost cost;
  for (size_t k = 0; k < tensors.size(); ++k) {
    const LogicalTensor& tensor = tensors[k];
    const uint64_t bytes = tensor_size_bytes(types[k], tensor.shape);
    cost.n_weights += tensor.shape.n_elements();
    if (tensor.role == Role::kRoutedExpert && tensor.shape.rank() == 3) {
      const auto experts = static_cast<uint64_t>(std::max<int64_t>(tensor.shape[0], 1));
      cost.expert_bytes += bytes;
      cost.active_expert_bytes += bytes / experts * std::min(used, experts);
    } else if ((tensor.role == Role::kTokenEmbedding && !tied) || tensor.keep == Keep::kInteger) {
      cost.embedding_bytes += bytes;
    } else {
      cost.always_bytes += bytes;
    }
  }
  return cost;
}

CacheCost cache_cost(const Metadata& metadata, int64_t n_context) {
  const Hparams h = outline_hparams(metadata);
  CacheCost cost;
  for (int64_t i = 0; i < h.n_layers; ++i) {
    const LayerParams& layer = h.layers[static_cast<size_t>(i)];
    switch (layer.attention) {
      case AttentionKind::kGrouped:
        add_grouped(h, layer, n_context, cost);
        break;
      case AttentionKind::kLatent:
        add_latent(h, n_context, cost);
        break;
      case AttentionKind::kCompressed:
        add_compressed(h, layer, n_context, cost);
        break;
    }
  }
  return cost;
}

uint64_t scratch_bytes(const Metadata& metadata, std::span<const LogicalTensor> tensors, int64_t n_context) {
  const Hparams h = outline_hparams(metadata);
  const int64_t batch = std::min(kBatch, n_context);
  const int64_t hidden = h.hidden * std::max<int64_t>(h.n_streams, 1);
  const int64_t queries = std::max<int64_t>(h.n_heads, 1) * key_width(h);
  const int64_t expert_width = std::max(h.own_expert_width ? h.expert_width : 0, h.hidden);
  const int64_t widest = std::max({h.dense_width, (h.routing.n_used + h.n_shared_experts) * expert_width, 2 * queries});
  const auto is_embedding = [](const LogicalTensor& tensor) { return tensor.role == Role::kTokenEmbedding; };
  const auto embedding = std::find_if(tensors.begin(), tensors.end(), is_embedding);
  const int64_t vocab = embedding == tensors.end() ? 0 : embedding->shape.n_rows();
  const uint64_t activations = product(batch, vocab + 2 * hidden + widest, kSingle);
  const auto compressed = std::ranges::find_if(h.layers, is_compressed);
  if (compressed == h.layers.end()) return activations + product(batch, n_context, kHalf);
  // Masks of the window and of the entries, scores of the indexer and their order.
  const int64_t entries = (n_context + kOverlapRatio - 1) / kOverlapRatio;
  return activations + product(batch, window_cells(n_context, compressed->window) + entries, kHalf) + product(batch, 2 * entries, kSingle);
}

RunCost run_cost(const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types, int64_t n_context) {
  return {weight_cost(metadata, tensors, types), cache_cost(metadata, n_context), scratch_bytes(metadata, tensors, n_context)};
}

}  // namespace quern
