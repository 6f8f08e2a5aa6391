#include <algorithm>

#include "formats/arch/config.h"
#include "formats/encodings/encoding.h"

// FP4 as DeepSeek-V4 and gpt-oss store it: e2m1 pairs in bytes, low nibble = even column, and one e8m0 scale per 32 columns.
// DeepSeek-V4 has I8 or U8 [rows, cols/2] with "X.scale" for "X.weight"; gpt-oss has "X_blocks" [.., cols/32, 16] with "X_scales". The
// bytes are laid out alike. A GGUF block of MXFP4 has the same codes and scales in other places, so copying needs no floats.

namespace quern::encodings {
namespace {

using safetensors::StoredTensor;

constexpr int64_t kBlockWeights = 32;
// Largest scale byte with which every e2m1 code is a finite float: 6 * 2^(252 - 127).
constexpr uint8_t kMaxScale = 252;

constexpr std::string_view kOssCodes = "_blocks";
constexpr std::string_view kOssScales = "_scales";

constexpr std::array<const char*, 1> kMethods = {"mxfp4"};
constexpr std::array<Companion, 3> kCompanions = {{kBlockScales[0], kBlockScales[1], {kOssScales, kOssCodes}}};

// DeepSeek-V4 states the type of its experts, gpt-oss a method that applies to nothing else.
std::optional<Promise> promise(const ModelConfig& config, const LogicalTensor& tensor, DType) {
  if (tensor.role != Role::kRoutedExpert) return std::nullopt;
  if (config.find_string("expert_dtype") != "fp4" && config.find_string("quantization_config.quant_method") != kMethods[0]) {
    return std::nullopt;
  }
  return Promise{DType::MXFP4, {}};
}

bool claims(const Wanted& wanted) {
  if (wanted.stored == nullptr) return false;
  return wanted.name.ends_with(kOssCodes) || wanted.stored->dtype == DType::I8 || wanted.stored->dtype == DType::U8;
}

bool has_whole_blocks(const Wanted& wanted, const Shape& shape, Problems& problems) {
  if (shape.rank() >= 2 && shape.row_length() % kBlockWeights == 0) return true;
  problems.add(ErrorKind::kUnsupported, in_quotes(wanted.name) + " is FP4 with rows of " + std::to_string(shape.row_length()) +
                                            " weights, which is not a multiple of " + std::to_string(kBlockWeights));
  return false;
}

std::optional<EncodedTensor> with_scales(const StoredTensor& codes, const StoredTensor& scales, const Shape& stored_shape,
                                         const Shape& shape, Problems& problems) {
  if (codes.shape != stored_shape) return report_shape(codes, stored_shape, problems);
  if (!is_e8m0(scales.dtype)) {
    problems.add(ErrorKind::kFormat,
                 in_quotes(scales.name) + " is " + std::string(name_of(scales.dtype)) + ", FP4 scales are F8_E8M0 or U8");
    return std::nullopt;
  }
  return with_block_scales(row_by_row(codes, shape), shape, scales, 1, kBlockWeights, problems);
}

std::optional<EncodedTensor> find_oss(const Wanted& wanted, const Shape& shape, Problems& problems) {
  const std::string scales_name = with_ending(wanted.name, kOssCodes, kOssScales);
  const StoredTensor* scales = wanted.checkpoint.find(scales_name);
  if (scales == nullptr) {
    problems.add(ErrorKind::kFormat, "missing tensor " + in_quotes(scales_name));
    return std::nullopt;
  }
  const DType dtype = wanted.stored->dtype;
  if (dtype != DType::U8) {
    problems.add(ErrorKind::kFormat, in_quotes(wanted.name) + " is " + std::string(name_of(dtype)) + ", expected U8");
    return std::nullopt;
  }
  if (!has_whole_blocks(wanted, shape, problems)) return std::nullopt;
  std::array<int64_t, Shape::kMaxRank> dims{};
  const auto end = std::ranges::copy(shape.dims().first(static_cast<size_t>(shape.rank() - 1)), dims.begin()).out;
  end[0] = shape.row_length() / kBlockWeights;
  end[1] = kBlockWeights / 2;
  const Shape stored_shape(std::span<const int64_t>(dims).first(static_cast<size_t>(shape.rank() + 1)));
  return with_scales(*wanted.stored, *scales, stored_shape, shape, problems);
}

std::optional<EncodedTensor> find(const Wanted& wanted, const Shape& shape, Problems& problems) {
  if (wanted.name.ends_with(kOssCodes)) return find_oss(wanted, shape, problems);
  const std::string dtype(name_of(wanted.stored->dtype));
  const StoredTensor* scales = find_companion(wanted, kBlockScales);
  if (scales == nullptr) {
    problems.add(ErrorKind::kFormat, "scale of " + in_quotes(wanted.name) + " (" + dtype + ") is missing");
    return std::nullopt;
  }
  if (wanted.stored->shape == shape) {
    problems.add(ErrorKind::kUnsupported, in_quotes(wanted.name) + " holds 8-bit integer weights; only FP4 pairs are known in " + dtype);
    return std::nullopt;
  }
  if (!has_whole_blocks(wanted, shape, problems)) return std::nullopt;
  return with_scales(*wanted.stored, *scales, with_matrix(shape, matrix_rows(shape), shape.row_length() / 2), shape, problems);
}

DType source_type(const EncodedTensor&) { return DType::MXFP4; }
bool can_copy(const safetensors::Checkpoint&, const EncodedTensor&) { return true; }
Exactness exactness(const safetensors::Checkpoint&, const EncodedTensor&) { return {DType::MXFP4, {}}; }

// Values of the two e2m1 codes in a byte, low nibble first. e2m1's -0 is +0, as ggml decodes it.
constexpr auto kPairs = [] {
  constexpr std::array<float, 16> kCodes = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6, 0, -0.5F, -1, -1.5F, -2, -3, -4, -6};
  std::array<std::array<float, 2>, 256> pairs{};
  for (size_t byte = 0; byte < pairs.size(); ++byte) pairs[byte] = {kCodes[byte & 15], kCodes[byte >> 4]};
  return pairs;
}();

void decode_block(const std::byte* pairs, float scale, float* out) noexcept {
  for (int64_t i = 0; i < kBlockWeights / 2; ++i) {
    const std::array<float, 2>& pair = kPairs[static_cast<size_t>(pairs[i])];
    out[2 * i] = pair[0] * scale;
    out[2 * i + 1] = pair[1] * scale;
  }
}

void decode_row(const std::byte* codes, DType scale_type, const std::byte* scales, int64_t n_blocks, float* out) noexcept {
  for (int64_t block = 0; block < n_blocks; ++block) {
    decode_block(codes + block * kBlockWeights / 2, scale_value(scale_type, scales, block), out + block * kBlockWeights);
  }
}

void decode(const EncodedTensor& tensor, const Tile& tile, int64_t first_row, int64_t n_rows, float* out, int64_t out_stride) {
  const DType scale_type = tensor.scales().tensor->dtype;
  for (int64_t row = first_row; row < first_row + n_rows; ++row, out += out_stride) {
    decode_row(tile.unit(tensor, 0, row), scale_type, tile.unit(tensor, 1, row), tensor.cols / kBlockWeights, out);
  }
}

void repack_block(const std::byte* pairs, std::byte scale, std::byte* block) noexcept {
  const auto* s = reinterpret_cast<const uint8_t*>(pairs);
  auto* qs = reinterpret_cast<uint8_t*>(block + 1);
  block[0] = scale;
  // Weights 0..15 are in s[0..7] and go to the low nibbles of qs, 16..31 are in s[8..15] and go to the high ones.
  for (size_t k = 0; k < 8; ++k) {
    qs[2 * k] = static_cast<uint8_t>((s[k] & 0x0F) | (s[k + 8] << 4));
    qs[2 * k + 1] = static_cast<uint8_t>((s[k] >> 4) | (s[k + 8] & 0xF0));
  }
}

// Returns the largest scale.
uint8_t copy_row(const std::byte* codes, const std::byte* scales, int64_t n_blocks, std::byte* out) noexcept {
  constexpr int64_t kSourceBytes = kBlockWeights / 2;
  constexpr int64_t kBlockBytes = kSourceBytes + 1;
  uint8_t largest = 0;
  for (int64_t block = 0; block < n_blocks; ++block) {
    repack_block(codes + block * kSourceBytes, scales[block], out + block * kBlockBytes);
    largest = std::max(largest, static_cast<uint8_t>(scales[block]));
  }
  return largest;
}

BadRow copy(const EncodedTensor& tensor, const Tile& tile, int64_t first_row, int64_t n_rows, std::byte* out, uint64_t out_stride_bytes) {
  for (int64_t row = first_row; row < first_row + n_rows; ++row, out += out_stride_bytes) {
    const uint8_t largest = copy_row(tile.unit(tensor, 0, row), tile.unit(tensor, 1, row), tensor.cols / kBlockWeights, out);
    if (largest > kMaxScale) return {row, "an e8m0 scale above 2^125"};
  }
  return {};
}

}  // namespace

extern const Encoding kFp4Pairs;
const Encoding kFp4Pairs = {.methods = kMethods,
                            .companions = kCompanions,
                            .check_config = nullptr,
                            .promise = promise,
                            .claims = claims,
                            .find = find,
                            .source_type = source_type,
                            .can_copy = can_copy,
                            .exactness = exactness,
                            .decode = decode,
                            .copy = copy};

}  // namespace quern::encodings
