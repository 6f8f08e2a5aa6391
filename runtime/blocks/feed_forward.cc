#include "runtime/blocks/feed_forward.h"

#include "formats/base/parallel.h"
#include "runtime/math/vector_math.h"

// Networks that run together share the threads: all gate and up products of a group of experts are one call, all down products another,
// because one expert's tiles rarely occupy every thread. Their rows lie one after the other, so that a group is one matrix of
// intermediates however many experts it has.

namespace quern {
namespace {

void observe_ffn(const Compute& compute, const FfnRows& rows, std::initializer_list<const StoredMatrix*> weights, const Rows& x) {
  if (compute.observer == nullptr) return;
  std::vector<std::string_view> names;
  for (const StoredMatrix* weight : weights) names.push_back(weight->info->name);
  for (const Piece& piece : rows.pieces) {
    const auto shares = rows.shares.empty()
                            ? rows.shares
                            : rows.shares.subspan(static_cast<size_t>(piece.first - rows.first), static_cast<size_t>(piece.n));
    observe(compute, names, x.slice(piece.first, piece.n), rows.weights->expert, shares);
  }
}

// Inputs of the networks, packed one after the other.
std::vector<PackedMatrix> pack_networks(const Compute& compute, std::span<const FfnRows> networks, const Rows& x, FloatBuffer& buffer) {
  int64_t n_panels = 0;
  for (const FfnRows& rows : networks) n_panels += (rows.n + kPanelWidth - 1) / kPanelWidth;
  const int64_t n_k = padded_k(x.n_columns), panel_floats = kPanelWidth * n_k;
  float* out = buffer.resize(n_panels * panel_floats);
  std::vector<PackedMatrix> packed;
  std::vector<Rows> panels;
  for (const FfnRows& rows : networks) {
    packed.push_back({out + static_cast<int64_t>(panels.size()) * panel_floats, rows.n, n_k});
    for (int64_t row = 0; row < rows.n; row += kPanelWidth) {
      panels.push_back(x.slice(rows.first + row, std::min(kPanelWidth, rows.n - row)));
    }
  }
  parallel_for(n_panels, 2, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) compute.kernel->pack_rows(panels[static_cast<size_t>(p)], out + p * panel_floats);
  });
  return packed;
}

}  // namespace

void ffn_block(const Compute& compute, Workspace& work, std::span<const FfnRows> networks, Activation activation, double limit,
               const Rows& x, float* out) {
  const int64_t width = networks.front().weights->gate->n_rows, hidden = x.n_columns;
  float* gate = work.gate.resize(x.n_rows * width);
  float* up = work.up.resize(x.n_rows * width);
  for (const FfnRows& rows : networks) observe_ffn(compute, rows, {rows.weights->gate, rows.weights->up}, x);
  const std::vector<PackedMatrix> inputs = pack_networks(compute, networks, x, work.packed_input);
  std::vector<Product> products;
  for (size_t i = 0; i < networks.size(); ++i) {
    const int64_t at = networks[i].first * width;
    products.push_back({networks[i].weights->gate, std::span(&inputs[i], 1), gate + at, width});
    products.push_back({networks[i].weights->up, std::span(&inputs[i], 1), up + at, width});
  }
  multiply(compute, products);
  for (const FfnRows& rows : networks) {
    add_bias(rows.weights->gate_bias, rows.n, gate + rows.first * width, width);
    add_bias(rows.weights->up_bias, rows.n, up + rows.first * width, width);
  }
  parallel_for(x.n_rows, 4, [&](int64_t begin, int64_t end) {
    activate_row(activation, limit, gate + begin * width, up + begin * width, (end - begin) * width);
  });
  const Rows gated{gate, x.n_rows, width, width};
  for (const FfnRows& rows : networks) observe_ffn(compute, rows, {rows.weights->down}, gated);
  const std::vector<PackedMatrix> gated_inputs = pack_networks(compute, networks, gated, work.packed_gated);
  products.clear();
  for (size_t i = 0; i < networks.size(); ++i) {
    products.push_back({networks[i].weights->down, std::span(&gated_inputs[i], 1), out + networks[i].first * hidden, hidden});
  }
  multiply(compute, products);
  for (const FfnRows& rows : networks) add_bias(rows.weights->down_bias, rows.n, out + rows.first * hidden, hidden);
}

void router_logits(const LayerContext& context, const MoeWeights& weights, const Rows& x, std::span<const Piece> pieces, float* out) {
  const int64_t n_experts = context.hparams.routing.n_experts;
  observe(context, {weights.router.info}, x, pieces);
  linear(context.compute, weights.router, pack_input(context.compute, x, context.work.packed_input), out, n_experts);
  add_bias(weights.router_bias, x.n_rows, out, n_experts);
}

void DenseFfn::list(const std::string& suffix, int64_t width, const Hparams& h, WeightList& weights) {
  weights.matrix("ffn_gate" + suffix + ".weight", width, h.hidden, gate);
  weights.matrix("ffn_up" + suffix + ".weight", width, h.hidden, up);
  weights.matrix("ffn_down" + suffix + ".weight", h.hidden, width, down);
}

void DenseFfn::list_biases(int64_t width, const Hparams& h, WeightList& weights) {
  weights.floats_if_stored("ffn_gate.bias", {width}, gate_bias);
  weights.floats_if_stored("ffn_up.bias", {width}, up_bias);
  weights.floats_if_stored("ffn_down.bias", {h.hidden}, down_bias);
}

void MoeWeights::list(const Hparams& h, const LayerParams& layer, WeightList& weights) {
  const int64_t n_experts = h.routing.n_experts;
  weights.matrix("ffn_gate_inp.weight", n_experts, h.hidden, router);
  weights.floats_if_stored("ffn_gate_inp.bias", {n_experts}, router_bias);
  weights.floats_if_stored("exp_probs_b.bias", {n_experts}, choice_bias);
  if (layer.hash_routing) weights.integers("ffn_gate_tid2eid.weight", h.routing.n_used, token_table);
  weights.floats_if_stored("ffn_gate_exps.bias", {n_experts, h.expert_width}, gate_bias);
  weights.floats_if_stored("ffn_up_exps.bias", {n_experts, h.expert_width}, up_bias);
  weights.floats_if_stored("ffn_down_exps.bias", {n_experts, h.hidden}, down_bias);
  if (weights.stored("ffn_gate_shexp.weight")) shared.list("_shexp", h.shared_width, h, weights);
}

std::vector<BlockWeight> expert_stacks(const Hparams& h) {
  const int64_t n = h.routing.n_experts;
  return {{"ffn_gate_exps.weight", {n, h.expert_width, h.hidden}, {}},
          {"ffn_up_exps.weight", {n, h.expert_width, h.hidden}, {}},
          {"ffn_down_exps.weight", {n, h.hidden, h.expert_width}, {}}};
}

}  // namespace quern
