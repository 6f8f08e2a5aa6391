#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quantize/plain/encode.h"

namespace quern {

// encode_rows, and then every block's scale is set so that the block keeps its length along the weights it stands for:
// sum h x y = sum h x^2, x being the weights, y what the decoder makes of the block, h the importance.
//
// Blocks of least error are too short by about their relative error: <x, y> = <y, y> < <x, x>. Such shortening has the same sign in every
// block, so it weakens a layer's output as a whole and adds up from layer to layer, while the rest of the error averages out. Making up for
// it costs squared error and lowers the KL divergence from the original (docs/encoders.md has both). Codes stay; only the block's
// binary16 scale, and offset, are multiplied. Types of 5 bits and more per weight lose too little length for it to matter, and MXFP4 has
// no scale that could be moved so little: they are encoded as by encode_rows.
//
// Arguments as for encode_rows. Same bytes on every CPU and for every split of the rows.
void encode_rows_unbiased(DType dtype, std::span<const float> x, int64_t n_rows, int64_t n_cols, std::span<const float> importance,
                          std::span<std::byte> out, Effort effort = Effort::kDefault);

}  // namespace quern
