#include "formats/checkpoint/encoding.h"

#include <algorithm>
#include <array>

#include "formats/arch/config.h"
#include "formats/base/bytes.h"
#include "formats/types/decode.h"
#include "formats/types/float_convert.h"

namespace quern::checkpoint {
namespace {

using safetensors::Checkpoint;
using safetensors::StoredTensor;

int64_t blocks_in(int64_t n, int64_t block) { return (n + block - 1) / block; }

int64_t matrix_rows(const Shape& shape) { return shape.rank() >= 2 ? shape[shape.rank() - 2] : 1; }

// The same outer dimensions with other rows and columns, as scales have.
Shape with_matrix(const Shape& shape, int64_t rows, int64_t cols) {
  return shape.rank() == 3 ? Shape{shape[0], rows, cols} : Shape{rows, cols};
}

bool is_scale_type(DType dtype) {
  using enum DType;
  return dtype == F32 || dtype == F16 || dtype == BF16 || dtype == F8_E8M0 || dtype == U8;
}

bool is_e8m0(DType dtype) { return dtype == DType::F8_E8M0 || dtype == DType::U8; }

// One find_encoded call: its arguments, and the checks that report.
struct Finder {
  const Checkpoint& checkpoint;
  const QuantizationConfig& config;
  std::string_view name;
  const Shape& shape;
  Problems& problems;

  std::nullopt_t fail(std::string text, ErrorKind kind = ErrorKind::kFormat) const {
    problems.add(kind, std::move(text));
    return std::nullopt;
  }

  std::nullopt_t wrong_shape(const StoredTensor& tensor, const Shape& expected) const {
    return fail(in_quotes(tensor.name) + " has shape " + tensor.shape.to_string() + ", expected " + expected.to_string());
  }

  EncodedTensor matrix(const StoredTensor& weights, Encoding encoding) const {
    EncodedTensor tensor;
    tensor.weights = &weights;
    tensor.encoding = encoding;
    tensor.n_slices = shape.rank() == 3 ? shape[0] : 1;
    tensor.cols = shape.row_length();
    tensor.rows = matrix_rows(shape);
    tensor.row_bytes = weights.size_bytes / static_cast<uint64_t>(tensor.n_slices * tensor.rows);
    return tensor;
  }

  const StoredTensor* find_scales() const {
    if (const StoredTensor* v3 = checkpoint.find(std::string(name) + "_scale_inv")) return v3;
    constexpr std::string_view kWeight = ".weight";
    if (!name.ends_with(kWeight)) return nullptr;
    return checkpoint.find(std::string(name.substr(0, name.size() - kWeight.size())) + ".scale");
  }

  std::optional<EncodedTensor> with_scales(EncodedTensor tensor, const StoredTensor& scales, int64_t block_rows, int64_t block_cols) const {
    tensor.scales = &scales;
    tensor.block_rows = block_rows;
    tensor.block_cols = block_cols;
    tensor.scale_rows = blocks_in(tensor.rows, block_rows);
    const int64_t scale_cols = blocks_in(tensor.cols, block_cols);
    const Shape expected = with_matrix(shape, tensor.scale_rows, scale_cols);
    if (!is_scale_type(scales.dtype))
      return fail(in_quotes(scales.name) + " is " + std::string(name_of(scales.dtype)) + ", not a scale type");
    if (scales.shape != expected) return wrong_shape(scales, expected);
    tensor.scale_row_bytes = row_size_bytes(scales.dtype, scale_cols);
    return tensor;
  }

  std::optional<EncodedTensor> plain(const StoredTensor& weights) const {
    if (weights.shape != shape) return wrong_shape(weights, shape);
    return matrix(weights, Encoding::kPlain);
  }

  std::optional<EncodedTensor> block_fp8(const StoredTensor& weights, const StoredTensor& scales) const {
    if (shape.rank() < 2) return fail(in_quotes(name) + " is an FP8 vector; only matrices have block scales", ErrorKind::kUnsupported);
    if (config.block_rows == 0) {
      return fail(in_quotes(name) + " is FP8 with scales, but config.json has no quantization_config.weight_block_size");
    }
    if (weights.shape != shape) return wrong_shape(weights, shape);
    return with_scales(matrix(weights, Encoding::kBlockFp8), scales, config.block_rows, config.block_cols);
  }

  std::optional<EncodedTensor> fp4(const StoredTensor& weights, const StoredTensor& scales, const Shape& stored_shape) const {
    if (weights.shape != stored_shape) return wrong_shape(weights, stored_shape);
    if (!is_e8m0(scales.dtype)) {
      return fail(in_quotes(scales.name) + " is " + std::string(name_of(scales.dtype)) + ", FP4 scales are F8_E8M0 or U8");
    }
    return with_scales(matrix(weights, Encoding::kFp4Pairs), scales, 1, kFp4BlockWeights);
  }

  bool whole_fp4_blocks() const {
    if (shape.rank() >= 2 && shape.row_length() % kFp4BlockWeights == 0) return true;
    problems.add(ErrorKind::kUnsupported, in_quotes(name) + " is FP4 with rows of " + std::to_string(shape.row_length()) +
                                              " weights, which is not a multiple of " + std::to_string(kFp4BlockWeights));
    return false;
  }

  std::optional<EncodedTensor> v4_fp4(const StoredTensor& weights) const {
    const StoredTensor* scales = find_scales();
    if (scales == nullptr) return fail("scale of " + in_quotes(name) + " (" + std::string(name_of(weights.dtype)) + ") is missing");
    if (weights.shape == shape) {
      return fail(in_quotes(name) + " holds 8-bit integer weights; only FP4 pairs are known in " + std::string(name_of(weights.dtype)),
                  ErrorKind::kUnsupported);
    }
    if (!whole_fp4_blocks()) return std::nullopt;
    return fp4(weights, *scales, with_matrix(shape, matrix_rows(shape), shape.row_length() / 2));
  }

  std::optional<EncodedTensor> gpt_oss_fp4(const StoredTensor& weights) const {
    const std::string scales_name = std::string(name.substr(0, name.size() - 6)) + "scales";
    const StoredTensor* scales = checkpoint.find(scales_name);
    if (scales == nullptr) return fail("missing tensor " + in_quotes(scales_name));
    if (weights.dtype != DType::U8) return fail(in_quotes(name) + " is " + std::string(name_of(weights.dtype)) + ", expected U8");
    if (!whole_fp4_blocks()) return std::nullopt;
    std::array<int64_t, Shape::kMaxRank> dims{};
    const auto end = std::ranges::copy(shape.dims().first(static_cast<size_t>(shape.rank() - 1)), dims.begin()).out;
    end[0] = shape.row_length() / kFp4BlockWeights;
    end[1] = kFp4BlockWeights / 2;
    return fp4(weights, *scales, Shape(std::span<const int64_t>(dims).first(static_cast<size_t>(shape.rank() + 1))));
  }

  std::optional<EncodedTensor> find(bool integer) const {
    using enum DType;
    const StoredTensor* weights = checkpoint.find(name);
    if (weights == nullptr) return fail("missing tensor " + in_quotes(name));
    const DType dtype = weights->dtype;
    const bool is_integer = dtype == I64 || dtype == I32;
    if (integer != is_integer) {
      return fail(in_quotes(name) + " is " + std::string(name_of(dtype)) + ", expected " + (integer ? "I64 or I32" : "a float type"));
    }
    if (name.ends_with("_blocks")) return gpt_oss_fp4(*weights);
    switch (dtype) {
      case F64:
      case F32:
      case F16:
      case BF16:
      case I64:
      case I32:
        return plain(*weights);
      case I8:
      case U8:
        return v4_fp4(*weights);
      case F8_E4M3:
      case F8_E5M2: {
        const StoredTensor* scales = find_scales();
        if (scales != nullptr) return block_fp8(*weights, *scales);
        if (dtype == F8_E5M2) return plain(*weights);  // its range covers weights as they are; e4m3's does not
        return fail("scale of " + in_quotes(name) + " (F8_E4M3) is missing");
      }
      default:
        return fail(in_quotes(name) + " is " + std::string(name_of(dtype)) + ", which is no weight type");
    }
  }
};

// Values of the two e2m1 codes in a byte, low nibble first.
constexpr auto kFp4Pairs = [] {
  constexpr std::array<float, 16> kCodes = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6, 0, -0.5F, -1, -1.5F, -2, -3, -4, -6};
  std::array<std::array<float, 2>, 256> pairs{};
  for (size_t byte = 0; byte < pairs.size(); ++byte) pairs[byte] = {kCodes[byte & 15], kCodes[byte >> 4]};
  return pairs;
}();

void decode_f64(const std::byte* weights, std::span<float> out) noexcept {
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(load_le<double>(weights + 8 * i));
}

void decode_fp4_block(const std::byte* pairs, float scale, float* out) noexcept {
  for (int64_t i = 0; i < kFp4BlockWeights / 2; ++i) {
    const std::array<float, 2>& pair = kFp4Pairs[static_cast<size_t>(pairs[i])];
    out[2 * i] = pair[0] * scale;
    out[2 * i + 1] = pair[1] * scale;
  }
}

}  // namespace

QuantizationConfig read_quantization_config(const ModelConfig& config) {
  if (config.has("quantization.bits")) {
    throw Error(ErrorKind::kUnsupported, "config.json: `quantization` says this is an MLX checkpoint; convert the original one");
  }
  QuantizationConfig result;
  constexpr int64_t kMaxBlock = 1 << 20;
  if (const auto block = config.find_int_array("quantization_config.weight_block_size", 1, kMaxBlock)) {
    if (block->size() != 2) {
      throw Error(ErrorKind::kFormat,
                  "config.json: weight_block_size has " + std::to_string(block->size()) + " numbers, expected rows and columns");
    }
    result.block_rows = (*block)[0];
    result.block_cols = (*block)[1];
  }
  return result;
}

std::optional<EncodedTensor> find_encoded(const Checkpoint& checkpoint, const QuantizationConfig& config, std::string_view name,
                                          const Shape& shape, bool integer, Problems& problems) {
  return Finder{checkpoint, config, name, shape, problems}.find(integer);
}

std::string weights_of_scale(std::string_view name) {
  const auto replaced = [&](std::string_view suffix, std::string_view by) {
    return std::string(name.substr(0, name.size() - suffix.size())) + std::string(by);
  };
  if (name.ends_with("_scale_inv")) return replaced("_scale_inv", "");
  if (name.ends_with(".scale")) return replaced(".scale", ".weight");
  if (name.ends_with("_scales")) return replaced("_scales", "_blocks");
  return {};
}

std::string_view foreign_encoding(std::string_view name) noexcept {
  // Longest suffix first where one ends in another.
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 20> kSuffixes = {{
      {"weight_packed", "compressed-tensors"},
      {"weight_global_scale", "compressed-tensors"},
      {"input_global_scale", "compressed-tensors"},
      {"weight_zero_point", "compressed-tensors"},
      {"weight_shape", "compressed-tensors"},
      {"weight_g_idx", "compressed-tensors"},
      {"weight_scale_2", "NVIDIA ModelOpt"},
      {"input_scale", "FP8 with static activation scales"},
      {"activation_scale", "FP8 with static activation scales"},
      {"weight_scale", "FP8 or integers with per-tensor or per-row scales"},
      {"qscale_weight", "Mistral's FP8"},
      {"qscale_act", "Mistral's FP8"},
      {"qweight", "GPTQ or AWQ"},
      {"qzeros", "GPTQ or AWQ"},
      {"g_idx", "GPTQ"},
      {".scales", "MLX, GPTQ or AWQ"},
      {".biases", "MLX"},
      {"absmax", "bitsandbytes"},
      {"quant_map", "bitsandbytes"},
      {".SCB", "bitsandbytes"},
  }};
  if (name.find(".quant_state.") != name.npos) return "bitsandbytes";
  for (const auto& [suffix, encoding] : kSuffixes) {
    if (name.ends_with(suffix)) return encoding;
  }
  return {};
}

float scale_value(DType dtype, const std::byte* scales, int64_t index) noexcept {
  switch (dtype) {
    case DType::F32:
      return load_le<float>(scales + index * 4);
    case DType::F16:
      return f16_to_f32(load_le<uint16_t>(scales + index * 2));
    case DType::BF16:
      return bf16_to_f32(load_le<uint16_t>(scales + index * 2));
    default:
      return e8m0_to_f32(static_cast<uint8_t>(scales[index]));
  }
}

void decode_row(const EncodedTensor& tensor, const std::byte* weights, const std::byte* scales, std::span<float> out) {
  if (tensor.weights->dtype == DType::F64) return decode_f64(weights, out);
  if (tensor.encoding != Encoding::kFp4Pairs) decode_blocks(tensor.weights->dtype, {weights, tensor.row_bytes}, out);
  if (tensor.encoding == Encoding::kPlain) return;

  const DType scale_type = tensor.scales->dtype;
  for (int64_t first = 0, block = 0; first < tensor.cols; first += tensor.block_cols, ++block) {
    const float scale = scale_value(scale_type, scales, block);
    if (tensor.encoding == Encoding::kFp4Pairs) {
      decode_fp4_block(weights + first / 2, scale, out.data() + first);
    } else {
      const int64_t end = std::min(first + tensor.block_cols, tensor.cols);
      for (int64_t col = first; col < end; ++col) out[static_cast<size_t>(col)] *= scale;
    }
  }
}

}  // namespace quern::checkpoint
