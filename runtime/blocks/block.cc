#include "runtime/blocks/block.h"

#include "runtime/blocks/mixer_kinds.h"

namespace quern {

Block::Block(const LayerParams& layer) : mixer(mixer_kind(layer.attention).make()) {}

std::vector<BlockWeight> Block::list(const Hparams& h, const LayerParams& layer, const WeightList::Stored& stored) {
  WeightList weights(stored);
  weights.floats("attn_norm.weight", {h.hidden}, mixer_residual.norm);
  mixer->list(h, layer, weights);
  // gpt-oss and GLM call the second norm by the name of its place in the checkpoint.
  weights.floats(stored("ffn_norm.weight") ? "ffn_norm.weight" : "post_attention_norm.weight", {h.hidden}, ffn_residual.norm);
  mixer_residual.list_streams("hc_attn", h, weights);
  ffn_residual.list_streams("hc_ffn", h, weights);
  if (layer.moe) {
    moe.list(h, layer, weights);
  } else {
    dense.list("", h.dense_width, h, weights);
    dense.list_biases(h.dense_width, h, weights);
  }
  return weights.take();
}

}  // namespace quern
