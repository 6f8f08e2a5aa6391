#pragma once

#include <cstddef>
#include <span>

#include "formats/types/dtype.h"

namespace quern {

// Every type of the table that can be a GGUF float type, plus F8_E4M3, F8_E5M2 and F8_E8M0 element by element. Not integers.
bool has_decoder(DType dtype) noexcept;

// Decodes whole blocks to floats, bit for bit as ggml's to_float does. blocks.size() is a whole number of blocks of `dtype` and
// out.size() the number of weights in them; types without a decoder are refused (kInternal). No alignment is required. Single-threaded.
void decode_blocks(DType dtype, std::span<const std::byte> blocks, std::span<float> out);

// Position of the first block whose scales or values are not finite, or -1. What ggml_validate_row_data rejects, and more
// (E8M0 255, NaN in FP8).
int64_t find_nonfinite_block(DType dtype, std::span<const std::byte> blocks);

}  // namespace quern
