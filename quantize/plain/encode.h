#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/types/dtype.h"
#include "quantize/plain/effort.h"

namespace quern {

// True for types that encode_rows can write.
bool has_encoder(DType dtype) noexcept;

// Counts up whenever the bytes an encoder makes for some input change. Recorded in files ("quern.encoder.Q4_K"), so that a
// later version can tell "made by an older encoder" from "damaged".
int encoder_revision(DType dtype) noexcept;

// Memory that one call of encode_rows takes beside its arguments, where that is more than a stack has room for.
uint64_t encoder_bytes(DType dtype) noexcept;

// encode_rows takes some types fastest in multiples of this many rows.
inline constexpr int64_t kRowsEncodedTogether = 16;

// Encodes n_rows x n_cols floats (row-major) as whole rows of blocks of `dtype`. n_cols is a multiple of the block size.
// importance: n_cols non-negative column weights (mean squared activation), or empty for uniform.
// out: exactly n_rows * n_cols / block_weights * block_bytes bytes.
// Same bytes on every CPU and for every split of the rows; single-threaded; never writes a NaN or infinite scale for finite input.
void encode_rows(DType dtype, std::span<const float> x, int64_t n_rows, int64_t n_cols, std::span<const float> importance,
                 std::span<std::byte> out, Effort effort = Effort::kDefault);

}  // namespace quern
