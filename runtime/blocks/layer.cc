#include "runtime/blocks/layer.h"

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "runtime/math/vector_math.h"

namespace quern {

void observe_block(const LayerContext& context, std::initializer_list<std::string_view> names, const Rows& x, int64_t slice) {
  if (context.compute.observer == nullptr) return;
  const std::string prefix = "blk." + std::to_string(&context.layer - context.hparams.layers.data()) + ".";
  std::vector<std::string> found;
  for (const std::string_view name : names) {
    const bool has = context.weights.find_matrix(name) != nullptr || !context.weights.value(name).empty();
    if (has) found.push_back(prefix + std::string(name));
  }
  const std::vector<std::string_view> views(found.begin(), found.end());
  observe(context.compute, views, x, slice);
}

void observe_block(const LayerContext& context, std::initializer_list<std::string_view> names, const Rows& x,
                   std::span<const Piece> pieces) {
  for (const Piece& piece : pieces) observe_block(context, names, x.slice(piece.first, piece.n));
}

void attention_block(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out) {
  for (const Piece& piece : pieces) QUERN_CHECK(piece.n <= kQueryTile);
  if (context.layer.attention == AttentionKind::kGrouped) return grouped_attention(context, x, pieces, out);
  for (const Piece& piece : pieces) {
    const bool latent = context.layer.attention == AttentionKind::kLatent;
    (latent ? latent_attention : compressed_attention)(context, x.slice(piece.first, piece.n), *piece.cache,
                                                       out + piece.first * context.hparams.hidden);
  }
}

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

void router_logits(const LayerContext& context, const Rows& x, const PackedMatrix& packed, std::span<const Piece> pieces, float* out) {
  const int64_t n_experts = context.hparams.routing.n_experts;
  observe_block(context, {"ffn_gate_inp.weight"}, x, pieces);
  linear(context.compute, context.weights.matrix("ffn_gate_inp.weight"), packed, out, n_experts);
  add_bias(context.weights.value("ffn_gate_inp.bias"), x.n_rows, out, n_experts);
}

}  // namespace quern
