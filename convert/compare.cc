#include "convert/compare.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "formats/decode.h"

namespace quern {
namespace {

// A multiple of every block size; 32 KB of floats.
constexpr size_t kPieceWeights = 8192;
// Sums of a row are kept in this many lanes, added up in order at the end: the same result on every CPU, and quick.
constexpr size_t kLanes = 8;
using Lanes = std::array<double, kLanes>;

double total(const Lanes& lanes) {
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

void add_squares(std::span<const float> x, Lanes& lanes) {
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (size_t k = 0; k < kLanes; ++k) lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
  }
  for (size_t k = 0; i < x.size(); ++i, ++k) lanes[k] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
}

void add_squared_differences(const float* x, const float* y, size_t n, Lanes& lanes, uint32_t& differing_bits) {
  size_t i = 0;
  const auto add = [&](size_t at, size_t lane) {
    const double difference = static_cast<double>(x[at]) - static_cast<double>(y[at]);
    lanes[lane] += difference * difference;
    differing_bits |= std::bit_cast<uint32_t>(x[at]) ^ std::bit_cast<uint32_t>(y[at]);
  };
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t k = 0; k < kLanes; ++k) add(i + k, k);
  }
  for (size_t k = 0; i < n; ++i, ++k) add(i, k);
}

}  // namespace

int64_t add_energy(std::span<const float> weights, int64_t row_length, ExactSum& energy) {
  const size_t n = static_cast<size_t>(row_length);
  for (size_t row = 0; row * n < weights.size(); ++row) {
    Lanes lanes{};
    add_squares(weights.subspan(row * n, n), lanes);
    const double sum = total(lanes);
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
  uint32_t differing_bits = 0;
  for (size_t row = 0; row * n < weights.size(); ++row) {
    Lanes lanes{};
    for (size_t at = 0; at < n; at += kPieceWeights) {
      const size_t size = std::min(kPieceWeights, n - at);
      const size_t first = row * n + at;
      decode_blocks(dtype, blocks.subspan(first / block_weights * block_bytes, size / block_weights * block_bytes),
                    std::span(decoded).first(size));
      add_squared_differences(weights.data() + first, decoded.data(), size, lanes, differing_bits);
    }
    const double sum = total(lanes);
    if (std::isfinite(sum)) {
      result.squared_error.add(sum);
    } else if (result.nonfinite_row < 0) {
      result.nonfinite_row = static_cast<int64_t>(row);
    }
  }
  result.exact = differing_bits == 0;
  return result;
}

}  // namespace quern
