#include "formats/encodings/fp8.h"

#include <algorithm>
#include <bit>

#include "formats/arch/config.h"
#include "formats/types/decode.h"

namespace quern::encodings {
namespace {

// e4m3 has 4 significant bits and e5m2 3, so a power of two as the scale leaves them as they are in BF16, unless the exponent of the
// largest or the smallest code leaves BF16's range: 2^-9 * 2^-124 is BF16's smallest subnormal 2^-133, 448 * 2^119 is below 2^128.
// e5m2 reaches further both ways: 2^-16 and 57344.
bool exact_in_bf16(DType codes, float scale) noexcept {
  const auto bits = std::bit_cast<uint32_t>(scale);
  const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 127;
  const bool power_of_two = (bits & 0x807FFFFF) == 0;  // subnormals are too small anyway
  return power_of_two && (codes == DType::F8_E4M3 ? exponent >= -124 && exponent <= 119 : exponent >= -117 && exponent <= 112);
}

// Multiplies runs of block_cols weights, the last of which may be shorter, by one scale each.
void scale_row(DType scale_type, const std::byte* scales, int64_t block_cols, std::span<float> weights) noexcept {
  for (int64_t block = 0; !weights.empty(); ++block) {
    const float scale = scale_value(scale_type, scales, block);
    const std::span<float> run = weights.first(std::min(weights.size(), static_cast<size_t>(block_cols)));
    for (float& weight : run) weight *= scale;
    weights = weights.subspan(run.size());
  }
}

constexpr const char* kBf16Bound = "BF16 moves a weight by at most 2^-8 of its size";

}  // namespace

bool is_fp8(DType dtype) noexcept { return dtype == DType::F8_E4M3 || dtype == DType::F8_E5M2; }

DType fp8_source_type(const EncodedTensor&) { return DType::BF16; }
bool fp8_can_copy(const safetensors::Checkpoint&, const EncodedTensor&) { return false; }

Exactness fp8_exactness(const safetensors::Checkpoint& checkpoint, const EncodedTensor& tensor) {
  const safetensors::StoredTensor& scales = *tensor.scales().tensor;
  const auto element_bytes = static_cast<uint64_t>(traits(scales.dtype).block_bytes);
  constexpr uint64_t kPieceBytes = 64 << 10;  // V3's scales fail at the first one, so the first piece decides
  std::vector<std::byte> piece;
  for (uint64_t at = 0; at < scales.size_bytes; at += piece.size()) {
    piece.resize(std::min(kPieceBytes, scales.size_bytes - at));
    checkpoint.read(scales, at, piece);
    for (int64_t i = 0; i < static_cast<int64_t>(piece.size() / element_bytes); ++i) {
      if (exact_in_bf16(tensor.codes().tensor->dtype, scale_value(scales.dtype, piece.data(), i))) continue;
      return {std::nullopt,
              "the FP8 scales in " + in_quotes(scales.name) + " are not all powers of two within BF16's range; " + kBf16Bound};
    }
  }
  return {DType::BF16, {}};
}

std::optional<Promise> fp8_promise(const ModelConfig& config, const LogicalTensor& tensor, DType plain) {
  if (config.find_string("quantization_config.quant_method") != "fp8") return std::nullopt;
  if (tensor.keep != Keep::kMix || tensor.layer < 0 || tensor.shape.rank() < 2) return std::nullopt;
  if (config.find_string("quantization_config.scale_fmt") == "ue8m0") return Promise{plain, {}};
  return Promise{plain, "FP8 weights, and config.json does not say that their scales are powers of two"};
}

void fp8_decode(const EncodedTensor& tensor, const Tile& tile, int64_t first_row, int64_t n_rows, float* out, int64_t out_stride) {
  const DType scale_type = tensor.scales().tensor->dtype;
  for (int64_t row = first_row; row < first_row + n_rows; ++row, out += out_stride) {
    const std::span<float> weights(out, static_cast<size_t>(tensor.cols));
    decode_blocks(tensor.codes().tensor->dtype, {tile.unit(tensor, 0, row), tensor.codes().unit_bytes}, weights);
    scale_row(scale_type, tile.unit(tensor, 1, row), tensor.block_cols, weights);
  }
}

}  // namespace quern::encodings
