#include "runtime/blocks/residual.h"

#include "formats/base/parallel.h"
#include "formats/types/float_convert.h"
#include "runtime/math/vector_math.h"

namespace quern {
namespace {

constexpr int64_t kRowGrain = 16;

void round_rows(bool rounded, float* rows, int64_t n) {
  for (int64_t i = 0; rounded && i < n; ++i) rows[i] = bf16_to_f32(f32_to_bf16(rows[i]));
}

}  // namespace

void ResidualWeights::list_streams(const std::string& prefix, const Hparams& h, WeightList& weights) {
  if (h.n_streams == 1) return;
  const int64_t n_mixes = (2 + h.n_streams) * h.n_streams;
  weights.matrix(prefix + "_fn.weight", n_mixes, h.state_width(), fn);
  weights.floats(prefix + "_base.weight", {n_mixes}, base);
  weights.floats(prefix + "_scale.weight", {3}, scale);
}

std::vector<HyperMix> residual_mixes(const LayerContext& context, const ResidualWeights& weights, const Rows& states,
                                     std::span<const Piece> pieces) {
  const Hparams& h = context.hparams;
  if (h.n_streams == 1) return {};
  const int64_t n = states.n_rows, n_mixes = weights.fn.n_rows;
  std::vector<float> mixes(static_cast<size_t>(n * n_mixes));
  linear(context.compute, weights.fn, pack_input(context.compute, states, context.work.packed_input), mixes.data(), n_mixes);
  observe_streams(context.compute, weights.fn, states.data, pieces, h.norm_eps);
  std::vector<HyperMix> result(static_cast<size_t>(n));
  parallel_for(n, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const double scale = inverse_rms(states.data + t * states.stride, states.n_columns, h.norm_eps);
      const std::span<const float> of_token(mixes.data() + t * n_mixes, static_cast<size_t>(n_mixes));
      result[static_cast<size_t>(t)] =
          hyper_mix(of_token, scale, {weights.base, weights.scale}, h.n_streams, h.sinkhorn_iterations, h.hyper_eps);
    }
  });
  return result;
}

void read_states(const Hparams& h, std::span<const float> norm, std::span<const HyperMix> mixes, const float* states,
                 std::span<const Piece> pieces, float* y) {
  for (const Piece& piece : pieces) {
    parallel_for(piece.n, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = piece.first + begin; t < piece.first + end; ++t) {
        float* row = y + t * h.hidden;
        if (mixes.empty()) {
          rms_norm(states + t * h.hidden, norm.data(), h.hidden, h.norm_eps, row);
        } else {
          hyper_read(states + t * h.state_width(), mixes[static_cast<size_t>(t)].pre, h.hidden, row);
          rms_norm(row, norm.data(), h.hidden, h.norm_eps, row);
        }
        round_rows(piece.rounded, row, h.hidden);
      }
    });
  }
}

void write_states(const Hparams& h, std::span<const HyperMix> mixes, const float* out, std::span<const Piece> pieces, float* states) {
  for (const Piece& piece : pieces) {
    parallel_for(piece.n, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = piece.first + begin; t < piece.first + end; ++t) {
        float* state = states + t * h.state_width();
        if (mixes.empty()) {
          for (int64_t i = 0; i < h.hidden; ++i) state[i] += out[t * h.hidden + i];
        } else {
          hyper_write(state, out + t * h.hidden, mixes[static_cast<size_t>(t)], h.hidden);
        }
        round_rows(piece.rounded, state, h.state_width());
      }
    });
  }
}

void observe_streams(const Compute& compute, const StoredMatrix& fn, const float* states, std::span<const Piece> pieces, double norm_eps) {
  if (compute.observer == nullptr) return;
  const std::string_view name = fn.info->name;
  for (const Piece& piece : pieces) {
    std::vector<float> rows(static_cast<size_t>(piece.n * fn.n_columns));
    for (int64_t t = 0; t < piece.n; ++t) {
      rms_norm(states + (piece.first + t) * fn.n_columns, nullptr, fn.n_columns, norm_eps, rows.data() + t * fn.n_columns);
    }
    observe(compute, std::span(&name, 1), {rows.data(), piece.n, fn.n_columns, fn.n_columns});
  }
}

}  // namespace quern
