#pragma once

#include <optional>
#include <span>
#include <vector>

#include "runtime/compressor.h"
#include "runtime/linear.h"
#include "runtime/models/layer_tensors.h"

namespace quern {

// Keys and values of one sequence in one layer, extended by each call of an attention block. A prefill starts with an empty cache,
// generation keeps it.
struct LayerCache {
  int64_t n_tokens = 0;
  std::vector<float> keys;    // grouped: [n, n_kv_heads * key_dim]; latent: [n, kv_rank]; compressed: [n, key_dim]
  std::vector<float> values;  // grouped: [n, n_kv_heads * value_dim]; latent: rotated key part [n, rope_dim]
  std::optional<Compressor> compressed;
  std::optional<Compressor> indexed;
};

// What the blocks of one layer read.
struct LayerContext {
  const Hparams& hparams;
  const LayerParams& layer;
  const LayerWeights& weights;
  const Compute& compute;
  const RopeParams& rope;
  std::span<const double> frequencies;  // of `rope`
};

// Tells the observer, if there is one, that these weights of the block (names without "blk.N.") multiply x; those that the layer does
// not have are left out.
void observe_block(const LayerContext& context, std::initializer_list<std::string_view> names, const PackedRows& x, int64_t slice = -1);

// Attention of n consecutive tokens that follow those in the cache. x: [n, hidden], normalised; out: [n, hidden]. A cache is extended
// by at most kQueryTile tokens at a time, which bounds all intermediates whatever the context.
inline constexpr int64_t kQueryTile = 512;
void attention_block(const LayerContext& context, const float* x, int64_t n, LayerCache& cache, float* out);

// The three kinds behind it; one file each.
void grouped_attention(const LayerContext& context, const PackedRows& x, LayerCache& cache, float* out);
void latent_attention(const LayerContext& context, const PackedRows& x, LayerCache& cache, float* out);
void compressed_attention(const LayerContext& context, const PackedRows& x, LayerCache& cache, float* out);

// One feed-forward network. Biases may be empty. out: [n, hidden].
struct FfnWeights {
  const StoredMatrix* gate = nullptr;
  const StoredMatrix* up = nullptr;
  const StoredMatrix* down = nullptr;
  std::span<const float> gate_bias, up_bias, down_bias;
  int64_t expert = -1;            // of a stack, for the observer
  std::span<const float> shares;  // of its rows, for the observer
};
void ffn_block(const Compute& compute, const FfnWeights& weights, Activation activation, double limit, const PackedRows& x, float* out);

// Products of the normalised input with the router, biases included. out: [n, n_experts].
void router_logits(const LayerContext& context, const PackedRows& x, float* out);

}  // namespace quern
