#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "formats/base/problems.h"
#include "formats/safetensors/safetensors.h"

namespace quern {

class ModelConfig;

namespace checkpoint {

// How the weights of a stored tensor are written, which decides what has to be read beside it.
enum class Encoding {
  kPlain,     // F64 F32 F16 BF16 F8_E5M2, or a table of I64 / I32
  kBlockFp8,  // F8_E4M3 or F8_E5M2; one scale per block of weight_block_size. DeepSeek-V3: "X.weight_scale_inv" (it multiplies, whatever
              // its name says), DeepSeek-V4: "X.scale" for "X.weight"
  kFp4Pairs   // e2m1 pairs in bytes, low nibble = even column; one e8m0 scale per 32 columns. DeepSeek-V4: I8 or U8 [rows, cols/2] with
              // "X.scale"; gpt-oss: "X_blocks" [.., cols/32, 16] with "X_scales". The bytes are laid out alike.
};

inline constexpr int64_t kFp4BlockWeights = 32;

// What config.json says about encodings.
struct QuantizationConfig {
  int64_t block_rows = 0;  // weight_block_size, 0 if there is none
  int64_t block_cols = 0;
};

// Throws kUnsupported for the `quantization` object of MLX. A foreign quant_method is refused by the architecture's check.
QuantizationConfig read_quantization_config(const ModelConfig& config);

// A stored tensor as a stack of matrices of weights, with its scales.
struct EncodedTensor {
  const safetensors::StoredTensor* weights = nullptr;
  const safetensors::StoredTensor* scales = nullptr;  // F32 F16 BF16, or F8_E8M0 and U8, which both are e8m0; nullptr for kPlain
  Encoding encoding = Encoding::kPlain;
  int64_t n_slices = 1;
  int64_t rows = 1;        // of one slice
  int64_t cols = 1;        // weights per row
  int64_t block_rows = 1;  // weights that share a scale; blocks at the right and bottom edge of a slice may be cut off
  int64_t block_cols = 1;
  uint64_t row_bytes = 0;
  uint64_t scale_row_bytes = 0;  // bytes of the scales of one row of blocks
  int64_t scale_rows = 0;        // rows of blocks in one slice
};

// Pairs the stored tensor `name`, expected to hold weights of `shape` (rank 1 to 3; outermost of three is the slice), with its scales.
// `integer` tells tables from weights. Everything that is wrong goes to `problems`, and then there is no result.
std::optional<EncodedTensor> find_encoded(const safetensors::Checkpoint& checkpoint, const QuantizationConfig& config,
                                          std::string_view name, const Shape& shape, bool integer, Problems& problems);

// "X.weight" or "X_blocks" for the name of a scale tensor, empty for other names.
std::string weights_of_scale(std::string_view name);

// The encoding that a stored name gives away by its suffix ("qweight" is GPTQ or AWQ), empty for names that say nothing.
std::string_view foreign_encoding(std::string_view name) noexcept;

// The value of scale number `index`.
float scale_value(DType dtype, const std::byte* scales, int64_t index) noexcept;

// Decodes one row: `weights` has row_bytes bytes, `scales` the scale_row_bytes of its row of blocks, `out` cols floats. NaN codes
// become NaN; e2m1's -0 becomes +0, as ggml decodes it. Not for integer tables.
void decode_row(const EncodedTensor& tensor, const std::byte* weights, const std::byte* scales, std::span<float> out);

}  // namespace checkpoint
}  // namespace quern
