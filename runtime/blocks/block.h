#pragma once

#include <memory>

#include "runtime/blocks/feed_forward.h"
#include "runtime/blocks/mixer.h"
#include "runtime/blocks/residual.h"

namespace quern {

// The weights of one block in memory, less its routed experts: a mixer and a feed-forward half, each with its way from and to the states.
struct Block {
  // Nothing is held yet; list() says what is to be read, and hold() puts it here.
  explicit Block(const LayerParams& layer);

  std::vector<BlockWeight> list(const Hparams& hparams, const LayerParams& layer, const WeightList::Stored& stored);

  ResidualWeights mixer_residual, ffn_residual;
  std::unique_ptr<Mixer> mixer;
  DenseFfn dense;  // of layers without experts
  MoeWeights moe;  // of layers with them
};

}  // namespace quern
