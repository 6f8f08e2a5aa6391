#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/dtype.h"
#include "quantize/encode.h"

namespace quern {

// A number of candidates or rounds for each effort.
constexpr int by_effort(Effort effort, int fast, int usual, int best) noexcept {
  return effort == Effort::kFast ? fast : effort == Effort::kBest ? best : usual;
}

// Block types we write, with the revision of their encoder (see encoder_revision). A new encoder is a row here and a function
// encode_row_NAME in one of the encode_*_simd.cc files.
#define QUERN_ROW_ENCODERS(X) \
  X(Q4_0, 3)                  \
  X(Q4_1, 2)                  \
  X(Q5_0, 2)                  \
  X(Q5_1, 2)                  \
  X(Q8_0, 2)                  \
  X(Q2_K, 3)                  \
  X(Q3_K, 3)                  \
  X(Q4_K, 3)                  \
  X(Q5_K, 2)                  \
  X(Q6_K, 2)                  \
  X(IQ4_NL, 3)                \
  X(IQ4_XS, 3)                \
  X(IQ1_S, 2)                 \
  X(IQ1_M, 2)                 \
  X(TQ1_0, 3)                 \
  X(TQ2_0, 3)                 \
  X(IQ2_XXS, 2)               \
  X(IQ2_XS, 2)                \
  X(IQ2_S, 2)                 \
  X(IQ3_XXS, 2)               \
  X(IQ3_S, 2)                 \
  X(MXFP4, 1)

// One row: n_cols finite weights, n_cols importances or nullptr, n_cols / block_weights blocks out. No alignment is required of out.
using RowEncoder = void (*)(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out);

#define QUERN_DECLARE_ROW_ENCODER(name, revision) \
  void encode_row_##name(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out);
QUERN_ROW_ENCODERS(QUERN_DECLARE_ROW_ENCODER)
#undef QUERN_DECLARE_ROW_ENCODER

// For the end of an encode_*_simd.cc: picks the best compiled target at run time.
#define QUERN_DISPATCH_ROW_ENCODER(name)                                                                           \
  HWY_EXPORT(encode_row_##name);                                                                                   \
  void encode_row_##name(const float* x, const float* importance, int64_t n_cols, Effort effort, std::byte* out) { \
    HWY_DYNAMIC_DISPATCH(encode_row_##name)(x, importance, n_cols, effort, out);                                   \
  }

}  // namespace quern
