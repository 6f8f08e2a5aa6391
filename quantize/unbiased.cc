#include "quantize/unbiased.h"

#include <algorithm>
#include <concepts>

#include "formats/base/bytes.h"
#include "formats/blocks.h"
#include "formats/float_convert.h"
#include "quantize/block_weights.h"

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

// Sums of h x x and h x y in 8 lanes, so that compilers can use vectors without changing a bit.
struct Projection {
  double xx = 0.0;
  double xy = 0.0;
};

Projection project(const float* x, const float* y, const float* h, int64_t n) noexcept {
  constexpr int64_t kLanes = 8;  // divides every block
  double xx[kLanes] = {};
  double xy[kLanes] = {};
  for (int64_t j = 0; j < n; j += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      const double weighted = static_cast<double>(h[j + k]) * static_cast<double>(x[j + k]);
      xx[k] += weighted * static_cast<double>(x[j + k]);
      xy[k] += weighted * static_cast<double>(y[j + k]);
    }
  }
  Projection sum;
  for (int64_t k = 0; k < kLanes; ++k) {
    sum.xx += xx[k];
    sum.xy += xy[k];
  }
  return sum;
}

// A block that lost more than a third of its length has no direction worth keeping.
constexpr double kMostFactor = 1.5;

template <typename Block>
void keep_length(std::span<const float> x, int64_t n_cols, std::span<const float> importance, std::byte* out) noexcept {
  constexpr int64_t n = kBlockWeights<Block>;
  for (size_t i = 0; i < x.size(); i += n, out += sizeof(Block)) {
    Block block = load_le<Block>(out);
    float y[n];
    decode_block(block, y);
    float h[n];
    const size_t column = i % static_cast<size_t>(n_cols);
    for (size_t j = 0; j < n; ++j) h[j] = importance.empty() ? 1.0f : usable_importance(importance[column + j]);
    Projection sum = project(x.data() + i, y, h, n);
    if (!(sum.xx > 0.0)) {  // nothing is known about these columns
      std::fill(h, h + n, 1.0f);
      sum = project(x.data() + i, y, h, n);
    }
    const double factor = sum.xx / sum.xy;
    if (!(factor >= 1.0 / kMostFactor && factor <= kMostFactor)) continue;
    lengthen(block, factor);
    store_le(out, block);
  }
}

template <DType dtype>
void keep_length_of(std::span<const float> x, int64_t n_cols, std::span<const float> importance, std::byte* out) noexcept {
  using Block = typename BlockOf<dtype>::type;
  constexpr double bits = 8.0 * sizeof(Block) / kBlockWeights<Block>;
  constexpr bool has_scale = std::same_as<Block, BlockIQ1_M> || requires(Block block) { block.d; };
  if constexpr (has_scale && bits < kMostBits) keep_length<Block>(x, n_cols, importance, out);
}

}  // namespace

void encode_rows_unbiased(DType dtype, std::span<const float> x, int64_t n_rows, int64_t n_cols, std::span<const float> importance,
                          std::span<std::byte> out, Effort effort) {
  encode_rows(dtype, x, n_rows, n_cols, importance, out, effort);
  switch (dtype) {
#define QUERN_KEEP_LENGTH(name) \
  case DType::name:             \
    return keep_length_of<DType::name>(x, n_cols, importance, out.data());
    QUERN_BLOCK_TYPES(QUERN_KEEP_LENGTH)
#undef QUERN_KEEP_LENGTH
    default:
      return;
  }
}

}  // namespace quern
