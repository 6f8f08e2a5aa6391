#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/blocks/hyper_connection.h"
#include "runtime/blocks/layer.h"
#include "runtime/blocks/weight_list.h"

namespace quern {

// How a sublayer reads its input from the states of the tokens and adds its output to them: the plain residual of one stream, or
// hyper-connections over several.
struct ResidualWeights {
  FloatTensor norm;         // [hidden]
  StoredMatrix fn;          // [n*n + 2n, n*hidden]; the rest is empty with one stream
  FloatTensor base, scale;  // [n*n + 2n], [3]

  // prefix: "hc_attn" or "hc_ffn". The norm has a place of its own in the order of the block.
  void list_streams(const std::string& prefix, const Hparams& hparams, WeightList& weights);
};

// How the streams are read and mixed, per token; empty with one stream. states: [n, state_width].
std::vector<HyperMix> residual_mixes(const LayerContext& context, const ResidualWeights& weights, const Rows& states,
                                     std::span<const Piece> pieces);

// Input of a sublayer: the streams read through their mix, or the state itself, normalised. y: [n, hidden].
void read_states(const Hparams& hparams, std::span<const float> norm, std::span<const HyperMix> mixes, const float* states,
                 std::span<const Piece> pieces, float* y);
// Adds the output of a sublayer [n, hidden] to the states.
void write_states(const Hparams& hparams, std::span<const HyperMix> mixes, const float* out, std::span<const Piece> pieces, float* states);

// Tells the observer, if there is one, about the input of a hyper-connection's matrix: normalised streams, though the runtime
// multiplies first and scales the product.
void observe_streams(const Compute& compute, const StoredMatrix& fn, const float* states, std::span<const Piece> pieces, double norm_eps);

}  // namespace quern
