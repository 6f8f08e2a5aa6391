#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/types/dtype.h"
#include "quantize/plain/effort.h"

namespace quern {

// A number of candidates or rounds for each effort.
constexpr int by_effort(Effort effort, int fast, int usual, int best) noexcept {
  return effort == Effort::kFast ? fast : effort == Effort::kBest ? best : usual;
}

// What the importance of 256 columns makes of a code book with a parity rule: for each unit and entry a sum and its product with up to 8
// scales.
inline constexpr int kMostBookScales = 8;
constexpr uint64_t lattice_bytes(int dim, int entries) noexcept {
  return sizeof(float) * static_cast<uint64_t>(256 / dim * entries * (1 + kMostBookScales)) + 64 * static_cast<uint64_t>(256 / dim);
}

// How error feedback makes the blocks of a type: not at all; from the weights alone; or with a search for d that begins at the blocks
// which the encoder without feedback makes.
enum class FeedbackKind : uint8_t { kNone, kAlone, kFromPlain };

// The block types that we write, one row each: name, revision of its encoder (see encoder_revision), how error feedback makes its blocks,
// memory of a call (see encoder_bytes). A new encoder is a row here, a function encode_rows_NAME in one of the encode_*_simd.cc files
// and, unless the row says kNone, encode_tile_NAME in one of quantize/feedback/feedback_*_simd.cc. docs/adding-a-dtype.md has the rest.
#define QUERN_ENCODERS(X)                          \
  X(Q4_0, 6, kAlone, 0)                            \
  X(Q4_1, 3, kAlone, 0)                            \
  X(Q5_0, 5, kAlone, 0)                            \
  X(Q5_1, 3, kAlone, 0)                            \
  X(Q8_0, 5, kAlone, 0)                            \
  X(Q2_K, 5, kFromPlain, 0)                        \
  X(Q3_K, 5, kFromPlain, 0)                        \
  X(Q4_K, 5, kFromPlain, 0)                        \
  X(Q5_K, 4, kFromPlain, 0)                        \
  X(Q6_K, 4, kFromPlain, 0)                        \
  X(IQ4_NL, 6, kAlone, 0)                          \
  X(IQ4_XS, 5, kFromPlain, 0)                      \
  X(IQ1_S, 5, kFromPlain, 0)                       \
  X(IQ1_M, 5, kFromPlain, 0)                       \
  X(IQ2_XXS, 4, kFromPlain, lattice_bytes(8, 256)) \
  X(IQ2_XS, 4, kFromPlain, lattice_bytes(8, 512))  \
  X(IQ2_S, 5, kFromPlain, 0)                       \
  X(IQ3_XXS, 4, kFromPlain, lattice_bytes(4, 256)) \
  X(IQ3_S, 5, kFromPlain, 0)                       \
  X(Q2_0, 1, kAlone, 0)                            \
  X(TQ1_0, 4, kAlone, 0)                           \
  X(TQ2_0, 4, kAlone, 0)                           \
  X(MXFP4, 1, kAlone, 0)

// n_rows rows of n_cols finite weights, n_cols importances or nullptr, n_rows * n_cols / block_weights blocks out. No alignment is required
// of out. Rows do not depend on each other, and any number makes the same blocks.
using RowsEncoder = void (*)(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out);

#define QUERN_DECLARE_ROWS_ENCODER(name, revision, feedback, bytes) \
  void encode_rows_##name(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out);
QUERN_ENCODERS(QUERN_DECLARE_ROWS_ENCODER)
#undef QUERN_DECLARE_ROWS_ENCODER

// For the end of an encode_*_simd.cc: picks the best compiled target at run time.
#define QUERN_DISPATCH_ROWS_ENCODER(name)                                                                                           \
  HWY_EXPORT(encode_rows_##name);                                                                                                   \
  void encode_rows_##name(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) { \
    HWY_DYNAMIC_DISPATCH(encode_rows_##name)(x, n_rows, importance, n_cols, effort, out);                                           \
  }

}  // namespace quern
