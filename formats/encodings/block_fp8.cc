#include "formats/arch/config.h"
#include "formats/encodings/fp8.h"

// FP8 with one scale per block of quantization_config.weight_block_size, as DeepSeek-V3 and those who follow it publish it.

namespace quern::encodings {
namespace {

constexpr std::array<const char*, 1> kMethods = {"fp8"};

struct BlockSize {
  int64_t rows = 0;  // 0 if config.json states none
  int64_t cols = 0;
};

BlockSize read_block_size(const ModelConfig& config) {
  constexpr int64_t kMaxBlock = 1 << 20;
  const auto block = config.find_int_array("quantization_config.weight_block_size", 1, kMaxBlock);
  if (!block) return {};
  if (block->size() != 2) {
    throw Error(ErrorKind::kFormat,
                "config.json: weight_block_size has " + std::to_string(block->size()) + " numbers, expected rows and columns");
  }
  return {(*block)[0], (*block)[1]};
}

void check_config(const ModelConfig& config) { read_block_size(config); }

// e5m2 reaches far enough to need no scales; e4m3 without scales is claimed to say that they are missing.
bool claims(const Wanted& wanted) {
  if (wanted.stored == nullptr || !is_fp8(wanted.stored->dtype)) return false;
  return wanted.stored->dtype == DType::F8_E4M3 || find_companion(wanted, kBlockScales) != nullptr;
}

std::optional<EncodedTensor> find(const Wanted& wanted, const Shape& shape, Problems& problems) {
  const safetensors::StoredTensor* scales = find_companion(wanted, kBlockScales);
  if (scales == nullptr) {
    problems.add(ErrorKind::kFormat, "scale of " + in_quotes(wanted.name) + " (F8_E4M3) is missing");
    return std::nullopt;
  }
  if (shape.rank() < 2) {
    problems.add(ErrorKind::kUnsupported, in_quotes(wanted.name) + " is an FP8 vector; only matrices have block scales");
    return std::nullopt;
  }
  const BlockSize block = read_block_size(wanted.config);
  if (block.rows == 0) {
    problems.add(ErrorKind::kFormat,
                 in_quotes(wanted.name) + " is FP8 with scales, but config.json has no quantization_config.weight_block_size");
    return std::nullopt;
  }
  if (wanted.stored->shape != shape) return report_shape(*wanted.stored, shape, problems);
  return with_block_scales(row_by_row(*wanted.stored, shape), shape, *scales, block.rows, block.cols, problems);
}

}  // namespace

extern const Encoding kBlockFp8;
const Encoding kBlockFp8 = {.methods = kMethods,
                            .companions = kBlockScales,
                            .check_config = check_config,
                            .promise = fp8_promise,
                            .claims = claims,
                            .find = find,
                            .source_type = fp8_source_type,
                            .can_copy = fp8_can_copy,
                            .exactness = fp8_exactness,
                            .decode = fp8_decode,
                            .copy = nullptr};

}  // namespace quern::encodings
