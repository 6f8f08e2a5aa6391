#pragma once

#include <span>
#include <string>

#include "runtime/blocks/layer.h"
#include "runtime/blocks/weight_list.h"

namespace quern {

// One feed-forward network, as it is multiplied. Biases may be empty.
struct FfnWeights {
  const StoredMatrix* gate = nullptr;
  const StoredMatrix* up = nullptr;
  const StoredMatrix* down = nullptr;
  std::span<const float> gate_bias, up_bias, down_bias;
  int64_t expert = -1;  // of a stack, for the observer
};

// A network that every token passes: that of a dense layer, or the shared expert.
struct DenseFfn {
  StoredMatrix gate, up, down;
  FloatTensor gate_bias, up_bias, down_bias;

  // suffix: "" or "_shexp".
  void list(const std::string& suffix, int64_t width, const Hparams& hparams, WeightList& weights);
  void list_biases(int64_t width, const Hparams& hparams, WeightList& weights);
  bool empty() const noexcept { return gate.info == nullptr; }
  FfnWeights view() const noexcept { return {&gate, &up, &down, gate_bias, up_bias, down_bias}; }
};

// A mixture of experts, less the routed expert stacks, which are too large to be held.
struct MoeWeights {
  StoredMatrix router;                        // [n_experts, hidden]
  FloatTensor router_bias;                    // [n_experts]
  FloatTensor choice_bias;                    // [n_experts], added to the probabilities when experts are chosen
  IntegerTensor token_table;                  // [n_vocab, n_used]: the experts of every token, with hash routing
  FloatTensor gate_bias, up_bias, down_bias;  // [n_experts, width]
  DenseFfn shared;

  void list(const Hparams& hparams, const LayerParams& layer, WeightList& weights);
};

// The routed expert stacks of a MoE block: [n_experts, out, in] each, gate, up, down. They have no member.
std::vector<BlockWeight> expert_stacks(const Hparams& hparams);

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
void router_logits(const LayerContext& context, const MoeWeights& weights, const Rows& x, std::span<const Piece> pieces, float* out);

}  // namespace quern
