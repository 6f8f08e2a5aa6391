#include "quantize/feedback/unbiased.h"

#include <algorithm>
#include <array>
#include <concepts>
#include <vector>

#include "formats/base/bytes.h"
#include "formats/base/lane_sums.h"
#include "formats/types/blocks.h"
#include "formats/types/decode.h"
#include "formats/types/float_convert.h"
#include "quantize/plain/block_weights.h"

// The blocks are made by the usual encoder first, then decoded again, and each block's scale (and offset) is multiplied by how much it
// is too short. Codes do not change, so this is cheap and the same for every type whose scales can move by a fraction; the table of
// block types says which those are, by the members of their structs.

namespace quern {
namespace {

constexpr double kMostBits = 5.0;  // per weight

uint16_t times(uint16_t scale, double factor) noexcept {
  const double value = static_cast<double>(f16_to_f32(scale)) * factor;
  return f32_to_f16(static_cast<float>(std::clamp(value, -65504.0, 65504.0)));
}

template <typename Block>
void lengthen(Block& block, double factor) noexcept {
  block.d = times(block.d, factor);
  if constexpr (requires { block.dmin; }) block.dmin = times(block.dmin, factor);
}

void lengthen(BlockIQ1_M& block, double factor) noexcept {
  uint16_t d = 0;
  for (unsigned w = 0; w < 4; ++w) d = static_cast<uint16_t>(d | (block.scales[w] >> 12) << 4 * w);
  d = times(d, factor);
  for (unsigned w = 0; w < 4; ++w) block.scales[w] = static_cast<uint16_t>((block.scales[w] & 0xFFF) | (d >> 4 * w & 15) << 12);
}

// What `encoded` must be multiplied by to be as long as `original` along it, by the weights h; 0 when they say nothing.
double length_factor(std::span<const float> original, std::span<const float> encoded, std::span<const float> h) noexcept {
  LaneSums xx{};
  add_weighted_products(h, original, original, xx);
  const double energy = total(xx);
  if (!(energy > 0.0)) return 0.0;
  LaneSums xy{};
  add_weighted_products(h, original, encoded, xy);
  return energy / total(xy);
}

// A block that lost more than a third of its length has no direction worth keeping.
constexpr double kMostFactor = 1.5;
constexpr size_t kPieceWeights = 1024;  // a multiple of every block

// One row; importance is empty or has a usable weight for every column.
template <typename Block>
void keep_length(DType dtype, std::span<const float> x, std::span<const float> importance, std::byte* out) {
  constexpr size_t n = kBlockWeights<Block>;
  static constexpr auto kOnes = [] {
    std::array<float, n> ones;
    ones.fill(1.0f);
    return ones;
  }();
  std::array<float, kPieceWeights> decoded;
  for (size_t first = 0; first < x.size(); first += kPieceWeights) {
    const size_t size = std::min(kPieceWeights, x.size() - first);
    decode_blocks(dtype, std::span(out, size / n * sizeof(Block)), std::span(decoded).first(size));
    for (size_t i = 0; i < size; i += n, out += sizeof(Block)) {
      const auto original = x.subspan(first + i, n), encoded = std::span<const float>(decoded).subspan(i, n);
      double factor = importance.empty() ? 0.0 : length_factor(original, encoded, importance.subspan(first + i, n));
      if (factor == 0.0) factor = length_factor(original, encoded, kOnes);
      if (!(factor >= 1.0 / kMostFactor && factor <= kMostFactor)) continue;
      Block block = load_le<Block>(out);
      lengthen(block, factor);
      store_le(out, block);
    }
  }
}

template <DType dtype>
void keep_lengths(std::span<const float> x, size_t n_cols, std::span<const float> importance, std::byte* out) {
  using Block = typename BlockOf<dtype>::type;
  constexpr double bits = 8.0 * sizeof(Block) / kBlockWeights<Block>;
  constexpr bool has_scale = std::same_as<Block, BlockIQ1_M> || requires(Block block) { block.d; };
  if constexpr (has_scale && bits < kMostBits) {
    std::vector<float> usable(importance.size());
    std::ranges::transform(importance, usable.begin(), usable_importance);
    const size_t row_bytes = n_cols / kBlockWeights<Block> * sizeof(Block);
    for (size_t i = 0; i < x.size(); i += n_cols, out += row_bytes) keep_length<Block>(dtype, x.subspan(i, n_cols), usable, out);
  }
}

}  // namespace

void encode_rows_unbiased(DType dtype, std::span<const float> x, int64_t n_rows, int64_t n_cols, std::span<const float> importance,
                          std::span<std::byte> out, Effort effort) {
  encode_rows(dtype, x, n_rows, n_cols, importance, out, effort);
  switch (dtype) {
#define QUERN_KEEP_LENGTH(name) \
  case DType::name:             \
    return keep_lengths<DType::name>(x, static_cast<size_t>(n_cols), importance, out.data());
    QUERN_BLOCK_TYPES(QUERN_KEEP_LENGTH)
#undef QUERN_KEEP_LENGTH
    default:
      return;
  }
}

}  // namespace quern
