#pragma once

#include <optional>
#include <span>
#include <vector>

#include "runtime/blocks/compressor.h"
#include "runtime/blocks/layer_tensors.h"
#include "runtime/blocks/workspace.h"
#include "runtime/math/linear.h"

namespace quern {

// Keys and values of one sequence in one layer, extended by each call of an attention block. A prefill starts with an empty cache,
// generation keeps it.
struct LayerCache {
  int64_t n_tokens = 0;
  std::vector<float> keys;    // grouped: [n, n_kv_heads * key_dim]; latent: [n, kv_rank]; compressed: [n, key_dim]
  std::vector<float> values;  // grouped: [n, n_kv_heads * value_dim]; latent: rotated key part [n, rope_dim]
  std::optional<Compressor> compressed;
  std::optional<Compressor> indexed;

  // Empty again, with the memory it had.
  void clear() noexcept {
    n_tokens = 0;
    keys.clear();
    values.clear();
    compressed.reset();
    indexed.reset();
  }
};

// Rows of a batch that belong together: consecutive tokens of one sequence in an attention block, rows that an observer is told about
// in one call everywhere.
inline constexpr int64_t kQueryTile = 512;
struct Piece {
  int64_t first = 0;  // row of the batch
  int64_t n = 0;      // at most kQueryTile in attention
  LayerCache* cache = nullptr;
  bool rounded = false;  // see Sequence
};

// What the blocks of one layer read, and memory for what they make.
struct LayerContext {
  const Hparams& hparams;
  const LayerParams& layer;
  const LayerWeights& weights;
  const Compute& compute;
  const RopeParams& rope;
  std::span<const double> frequencies;  // of `rope`
  Workspace& work;
};

// Tells the observer, if there is one, that these weights of the block (names without "blk.N.") multiply x; those that the layer does
// not have are left out.
void observe_block(const LayerContext& context, std::initializer_list<std::string_view> names, const Rows& x, int64_t slice = -1);
// The same, piece by piece.
void observe_block(const LayerContext& context, std::initializer_list<std::string_view> names, const Rows& x,
                   std::span<const Piece> pieces);

// Attention of a batch of tokens, each piece following those in its cache. x: [n, hidden], normalised; out: [n, hidden].
// A cache is extended by at most kQueryTile tokens at a time, which bounds all intermediates whatever the context.
void attention_block(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out);

// The three kinds behind it; one file each. The first multiplies all pieces at once, the others one after the other.
void grouped_attention(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out);
void latent_attention(const LayerContext& context, const Rows& x, LayerCache& cache, float* out);
void compressed_attention(const LayerContext& context, const Rows& x, LayerCache& cache, float* out);

// One feed-forward network. Biases may be empty.
struct FfnWeights {
  const StoredMatrix* gate = nullptr;
  const StoredMatrix* up = nullptr;
  const StoredMatrix* down = nullptr;
  std::span<const float> gate_bias, up_bias, down_bias;
  int64_t expert = -1;  // of a stack, for the observer
};

// What a network is to be applied to.
struct FfnRows {
  const FfnWeights* weights = nullptr;
  int64_t first = 0;  // rows of the batch; those of one network follow one another
  int64_t n = 0;
  std::span<const Piece> pieces;  // of them, for the observer
  std::span<const float> shares;  // of them, for the observer; empty unless routed
};

// Networks of equal widths applied to rows of a batch. x and out: [n, hidden].
void ffn_block(const Compute& compute, Workspace& work, std::span<const FfnRows> networks, Activation activation, double limit,
               const Rows& x, float* out);

// Products of the normalised input with the router, biases included. out: [n, n_experts].
void router_logits(const LayerContext& context, const Rows& x, const PackedMatrix& packed, std::span<const Piece> pieces, float* out);

}  // namespace quern
