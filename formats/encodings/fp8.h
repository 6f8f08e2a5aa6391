#pragma once

#include "formats/encodings/encoding.h"

// FP8 weights with scales: e4m3 or e5m2 codes row by row as the first plane, and as the second one scale per block of
// Plane::unit_rows x block_cols weights. Encodings differ in where the scales are and in the size of a block; all of them use this.

namespace quern::encodings {

bool is_fp8(DType dtype) noexcept;

// GGUF has no FP8. A product of a code and a power of two has at most 4 significant bits, which BF16 holds.
DType fp8_source_type(const EncodedTensor& tensor);
bool fp8_can_copy(const safetensors::Checkpoint& checkpoint, const EncodedTensor& tensor);

// Reads scales until one shows that BF16 is not exact.
Exactness fp8_exactness(const safetensors::Checkpoint& checkpoint, const EncodedTensor& tensor);

// Of quant_method "fp8", the matrices within layers are FP8; the embedding, the output and what is kept are not.
std::optional<Promise> fp8_promise(const ModelConfig& config, const LogicalTensor& tensor, DType plain);

// code x scale, rounded to a float once.
void fp8_decode(const EncodedTensor& tensor, const Tile& tile, int64_t first_row, int64_t n_rows, float* out, int64_t out_stride);

}  // namespace quern::encodings
