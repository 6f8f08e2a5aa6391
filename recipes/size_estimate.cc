#include "recipes/size_estimate.h"

#include <algorithm>
#include <string>
#include <vector>

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

// The keys of one architecture.
class Keys {
 public:
  explicit Keys(const Metadata& metadata) : metadata_(metadata), arch_(metadata.find_string("general.architecture").value_or("")) {}

  const std::string& arch() const { return arch_; }

  // Counts of real models are far below 2^31; what a hostile file says beyond is refused, so that products of two and a size fit.
  int64_t count(const std::string& suffix, int64_t absent) const {
    const int64_t value = metadata_.find_int(arch_ + "." + suffix).value_or(absent);
    constexpr int64_t kMost = int64_t{1} << 24;
    if (value < 0 || value > kMost) {
      throw Error(ErrorKind::kFormat, "key '" + arch_ + "." + suffix + "' is " + std::to_string(value) + ", expected 0 to 16777216");
    }
    return value;
  }

  // One number, or one per layer.
  int64_t of_layer(const std::string& suffix, int64_t layer, int64_t absent) const {
    const MetaValue* value = metadata_.find(arch_ + "." + suffix);
    const bool is_list =
        value != nullptr && (std::holds_alternative<std::vector<int32_t>>(*value) || std::holds_alternative<std::vector<uint32_t>>(*value));
    if (!is_list) return count(suffix, absent);
    const std::vector<int64_t> values = *metadata_.find_int_array(arch_ + "." + suffix);
    if (layer >= static_cast<int64_t>(values.size())) return absent;
    return std::clamp<int64_t>(values[static_cast<size_t>(layer)], 0, int64_t{1} << 20);
  }

  int64_t layers() const { return count("block_count", 0) - count("nextn_predict_layers", 0); }
  int64_t embedding() const { return count("embedding_length", 0); }
  int64_t heads() const { return of_layer("attention.head_count", 0, 1); }
  int64_t head_width() const { return embedding() / std::max<int64_t>(heads(), 1); }

 private:
  const Metadata& metadata_;
  std::string arch_;
};

uint64_t product(int64_t a, int64_t b, int64_t c = 1) {
  const auto size = [](int64_t x) { return static_cast<uint64_t>(std::max<int64_t>(x, 0)); };
  return checked_mul(checked_mul(size(a), size(b), "size of the cache"), size(c), "size of the cache");
}

void add(CacheCost& cost, uint64_t size, uint64_t read) {
  cost.size_bytes = checked_add(cost.size_bytes, size, "size of the cache");
  cost.read_bytes = checked_add(cost.read_bytes, read, "size of the cache");
}

int64_t window_cells(int64_t n_context, int64_t window) { return padded_cells(std::min(padded_cells(n_context), window + kBatch)); }

// One latent per token and layer, which is key and value at once.
void add_latent(const Keys& keys, int64_t n_context, CacheCost& cost) {
  const int64_t width = keys.count("attention.key_length", 0);
  for (int64_t i = 0; i < keys.layers(); ++i) {
    add(cost, product(padded_cells(n_context), width, kHalf), product(n_context, width, kHalf));
  }
}

void add_grouped(const Keys& keys, int64_t n_context, CacheCost& cost) {
  const int64_t width = keys.count("attention.key_length", keys.head_width()) + keys.count("attention.value_length", keys.head_width());
  const int64_t window = keys.arch() == "gpt-oss" ? keys.count("attention.sliding_window", 0) : 0;
  for (int64_t i = 0; i < keys.layers(); ++i) {
    const int64_t values = width * keys.of_layer("attention.head_count_kv", i, keys.heads());
    const bool windowed = window > 0 && i % 2 == 0;
    const int64_t cells = windowed ? window_cells(n_context, window) : padded_cells(n_context);
    add(cost, product(cells, values, kHalf), product(windowed ? std::min(n_context, window) : n_context, values, kHalf));
  }
}

// Rolling state of a compressor: sums and scores in F32, of the tokens that the next entry is made of.
uint64_t compressor_state_bytes(int64_t width, int64_t ratio) {
  const int64_t halves = ratio == kOverlapRatio ? 2 : 1;
  return product(2 * halves * width, halves * ratio, kSingle);
}

// DeepSeek-V4: every layer has a window; compressed layers one entry per `ratio` tokens, which overlapping ones choose among by the keys of
// an indexer.
void add_compressed(const Keys& keys, int64_t n_context, CacheCost& cost) {
  const int64_t width = keys.count("attention.key_length", 0);
  const int64_t window = keys.count("attention.sliding_window", 0);
  const int64_t index_width = keys.count("attention.indexer.key_length", 0);
  const int64_t top_k = keys.count("attention.indexer.top_k", 0);
  for (int64_t i = 0; i < keys.layers(); ++i) {
    add(cost, product(window_cells(n_context, window), width, kHalf), product(std::min(n_context, window), width, kHalf));
    const int64_t ratio = keys.of_layer("attention.compress_ratios", i, 0);
    if (ratio == 0) continue;
    const int64_t entries = std::max<int64_t>((n_context + ratio - 1) / ratio, 1);
    const bool indexed = ratio == kOverlapRatio;
    add(cost, product(padded_cells(entries), width, kHalf), product(indexed ? std::min(entries, top_k) : entries, width, kHalf));
    add(cost, compressor_state_bytes(width, ratio), 0);
    if (!indexed) continue;
    add(cost, product(padded_cells(entries), index_width, kHalf), product(entries, index_width, kHalf));
    add(cost, compressor_state_bytes(index_width, ratio), 0);
  }
}

}  // namespace

WeightCost weight_cost(const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types) {
  QUERN_CHECK(tensors.size() == types.size());
  const Keys keys(metadata);
  const bool tied = std::none_of(tensors.begin(), tensors.end(), [](const LogicalTensor& t) { return t.role == Role::kOutput; });
  const auto used = static_cast<uint64_t>(keys.count("expert_used_count", 0));
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
  const Keys keys(metadata);
  CacheCost cost;
  if (metadata.find(keys.arch() + ".attention.compress_ratios") != nullptr) {
    add_compressed(keys, n_context, cost);
  } else if (keys.count("attention.kv_lora_rank", 0) > 0) {
    add_latent(keys, n_context, cost);
  } else {
    add_grouped(keys, n_context, cost);
  }
  return cost;
}

uint64_t scratch_bytes(const Metadata& metadata, std::span<const LogicalTensor> tensors, int64_t n_context) {
  const Keys keys(metadata);
  const int64_t batch = std::min(kBatch, n_context);
  const int64_t hidden = keys.embedding() * std::max<int64_t>(keys.count("hyper_connection.count", 1), 1);
  const int64_t queries = keys.heads() * keys.count("attention.key_length", keys.head_width());
  const int64_t experts = keys.count("expert_used_count", 0) + keys.count("expert_shared_count", 0);
  const int64_t expert_width = std::max(keys.count("expert_feed_forward_length", 0), keys.embedding());
  const int64_t widest = std::max({keys.of_layer("feed_forward_length", 0, 0), experts * expert_width, 2 * queries});
  const auto is_embedding = [](const LogicalTensor& tensor) { return tensor.role == Role::kTokenEmbedding; };
  const auto embedding = std::find_if(tensors.begin(), tensors.end(), is_embedding);
  const int64_t vocab = embedding == tensors.end() ? 0 : embedding->shape.n_rows();
  const uint64_t activations = product(batch, vocab + 2 * hidden + widest, kSingle);
  if (metadata.find(keys.arch() + ".attention.compress_ratios") == nullptr) return activations + product(batch, n_context, kHalf);
  // Masks of the window and of the entries, scores of the indexer and their order.
  const int64_t entries = (n_context + kOverlapRatio - 1) / kOverlapRatio;
  const int64_t cells = window_cells(n_context, keys.count("attention.sliding_window", 0));
  return activations + product(batch, cells + entries, kHalf) + product(batch, 2 * entries, kSingle);
}

RunCost run_cost(const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types, int64_t n_context) {
  return {weight_cost(metadata, tensors, types), cache_cost(metadata, n_context), scratch_bytes(metadata, tensors, n_context)};
}

}  // namespace quern
