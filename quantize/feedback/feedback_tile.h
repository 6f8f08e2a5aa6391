#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/types/dtype.h"
#include "quantize/plain/encoders.h"

namespace quern {

// Up to 256 consecutive weights of one row on their way into blocks, with what error feedback knows of their columns. Element (j, k)
// of R is at r[j * n + k].
struct FeedbackTile {
  int n = 0;
  const float* x = nullptr;          // the weights
  const float* shifted = nullptr;    // the weights plus what the errors of all earlier tiles ask of them
  const float* r = nullptr;          // [n][n]: the tile's own rows of R
  const float* d = nullptr;          // per column: what a squared error costs
  const std::byte* start = nullptr;  // for types of FeedbackKind::kFromPlain: what the encoder without feedback makes of `shifted` and d
};

// Writes the tile's blocks and errors[j] = x[j] - y[j], y being what the decoder makes of the blocks.
using TileEncoder = void (*)(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors);

#define QUERN_DECLARE_TILE_ENCODER(name, revision, feedback, bytes) \
  void encode_tile_##name(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors);
QUERN_ENCODERS(QUERN_DECLARE_TILE_ENCODER)
#undef QUERN_DECLARE_TILE_ENCODER

#define QUERN_DISPATCH_TILE_ENCODER(name)                                                           \
  HWY_EXPORT(encode_tile_##name);                                                                   \
  void encode_tile_##name(const FeedbackTile& tile, Effort effort, std::byte* out, float* errors) { \
    HWY_DYNAMIC_DISPATCH(encode_tile_##name)(tile, effort, out, errors);                            \
  }

// sums[c * 16 + lane] += sum over k < n_k of r[k * n + c] * errors[k * 16 + lane] for c < n, in blocks of 256 k, products rounded.
void add_feedback(const float* r, int64_t n, const float* errors, int64_t n_k, float* sums) noexcept;

// v[i * 16 + lane] -= sum over k < n of r[i * n + k] * a[k * 16 + lane] for i < n_rows, k ascending, products rounded.
void subtract_transposed(const float* r, int64_t n, const float* a, int64_t n_rows, float* v) noexcept;

}  // namespace quern
