#include "runtime/models/layer.h"

#include <algorithm>
#include <cmath>

#include "formats/base/error.h"

namespace quern {
namespace {

float activate(Activation activation, double limit, float gate_value, float up_value) {
  double gate = static_cast<double>(gate_value), up = static_cast<double>(up_value);
  if (limit > 0.0) {
    gate = std::min(gate, limit);
    up = std::clamp(up, -limit, limit);
  }
  const double steepness = activation == Activation::kGptOss ? 1.702 : 1.0;
  const double gated = gate / (1.0 + std::exp(-steepness * gate));
  return static_cast<float>(gated * (activation == Activation::kGptOss ? up + 1.0 : up));
}

}  // namespace

void observe_block(const LayerContext& context, std::initializer_list<std::string_view> names, const PackedRows& x, int64_t slice) {
  if (context.compute.observer == nullptr) return;
  const std::string prefix = "blk." + std::to_string(&context.layer - context.hparams.layers.data()) + ".";
  std::vector<std::string> found;
  for (const std::string_view name : names) {
    const bool has = context.weights.find_matrix(name) != nullptr || !context.weights.value(name).empty();
    if (has) found.push_back(prefix + std::string(name));
  }
  if (found.empty()) return;
  const std::vector<std::string_view> views(found.begin(), found.end());
  context.compute.observer->observe({views, slice, &x, {}});
}

void attention_block(const LayerContext& context, const float* x, int64_t n, LayerCache& cache, float* out) {
  QUERN_CHECK(n <= kQueryTile);
  const PackedRows packed(x, n, context.hparams.hidden, context.hparams.hidden);
  switch (context.layer.attention) {
    case AttentionKind::kGrouped:
      return grouped_attention(context, packed, cache, out);
    case AttentionKind::kLatent:
      return latent_attention(context, packed, cache, out);
    case AttentionKind::kCompressed:
      return compressed_attention(context, packed, cache, out);
  }
}

void ffn_block(const Compute& compute, const FfnWeights& weights, Activation activation, double limit, const PackedRows& x, float* out) {
  const int64_t width = weights.gate->n_rows, n = x.n_rows();
  std::vector<float> gate(static_cast<size_t>(n * width)), up(gate.size());
  observe(compute, {weights.gate, weights.up}, x, weights.expert, weights.shares);
  linear(compute, *weights.gate, x, gate.data(), width);
  linear(compute, *weights.up, x, up.data(), width);
  add_bias(weights.gate_bias, n, gate.data(), width);
  add_bias(weights.up_bias, n, up.data(), width);
  for (size_t i = 0; i < gate.size(); ++i) gate[i] = activate(activation, limit, gate[i], up[i]);
  const PackedRows gated(gate.data(), n, width, width);
  observe(compute, {weights.down}, gated, weights.expert, weights.shares);
  linear(compute, *weights.down, gated, out, weights.down->n_rows);
  add_bias(weights.down_bias, n, out, weights.down->n_rows);
}

void router_logits(const LayerContext& context, const PackedRows& x, float* out) {
  const int64_t n_experts = context.hparams.routing.n_experts;
  observe_block(context, {"ffn_gate_inp.weight"}, x);
  linear(context.compute, context.weights.matrix("ffn_gate_inp.weight"), x, out, n_experts);
  add_bias(context.weights.value("ffn_gate_inp.bias"), x.n_rows(), out, n_experts);
}

}  // namespace quern
