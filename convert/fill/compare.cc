#include "convert/fill/compare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "formats/base/lane_sums.h"
#include "formats/types/decode.h"

namespace quern {
namespace {

// A multiple of every block size; 32 KB of floats.
constexpr size_t kPieceWeights = 8192;

}  // namespace

int64_t add_energy(std::span<const float> weights, int64_t row_length, ExactSum& energy) {
  const size_t n = static_cast<size_t>(row_length);
  for (size_t row = 0; row * n < weights.size(); ++row) {
    LaneSums sums{};
    add_squares(weights.subspan(row * n, n), sums);
    const double sum = total(sums);
    if (!std::isfinite(sum)) return static_cast<int64_t>(row);  // no sum of squares of finite floats overflows a double
    energy.add(sum);
  }
  return -1;
}

Comparison compare_encoded(DType dtype, std::span<const std::byte> blocks, std::span<const float> weights, int64_t row_length) {
  const size_t n = static_cast<size_t>(row_length);
  const size_t block_weights = static_cast<size_t>(traits(dtype).block_weights),
               block_bytes = static_cast<size_t>(traits(dtype).block_bytes);
  std::array<float, kPieceWeights> decoded;
  Comparison result;
  for (size_t row = 0; row * n < weights.size(); ++row) {
    LaneSums sums{};
    for (size_t at = 0; at < n; at += kPieceWeights) {
      const size_t size = std::min(kPieceWeights, n - at);
      const size_t first = row * n + at;
      const auto original = weights.subspan(first, size);
      const auto written = std::span(decoded).first(size);
      decode_blocks(dtype, blocks.subspan(first / block_weights * block_bytes, size / block_weights * block_bytes), written);
      add_squared_differences(original, written, sums);
      result.exact = result.exact && std::memcmp(original.data(), written.data(), size * sizeof(float)) == 0;
    }
    const double sum = total(sums);
    if (std::isfinite(sum)) {
      result.squared_error.add(sum);
    } else if (result.nonfinite_row < 0) {
      result.nonfinite_row = static_cast<int64_t>(row);
    }
  }
  return result;
}

}  // namespace quern
