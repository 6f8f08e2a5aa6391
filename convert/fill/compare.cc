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

constexpr float kLargestHalf = 65504.0f;

// Within its reach a type rounds to the next step, and a weight beyond 65504 is at least one step, the scale, away from zero: it keeps two
// thirds of itself at worst, one and a half steps becoming one. What loses more was cut.
bool is_cut(DType dtype, float original, float written) {
  if (!(std::fabs(original) > kLargestHalf)) return false;
  if (dtype == DType::F16) return std::fabs(original) >= kLargestHalf + 16.0f;  // rounds to what would be the next binary16
  return std::fabs(written) < 0.6f * std::fabs(original);
}

// A row of which a weight was cut has a squared error of at least 16^2, so hardly any other row is looked at twice.
constexpr double kLeastCutError = 256.0;

bool can_cut(DType dtype) { return dtype == DType::F16 || (traits(dtype).block_weights > 1 && dtype != DType::MXFP4); }

}  // namespace

void Cut::add(const Cut& other) noexcept {
  n += other.n;
  if (std::fabs(other.largest) > std::fabs(largest) || (std::fabs(other.largest) == std::fabs(largest) && other.largest > largest))
    largest = other.largest;
}

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
  const auto decode = [&](size_t first, size_t size) {
    decode_blocks(dtype, blocks.subspan(first / block_weights * block_bytes, size / block_weights * block_bytes),
                  std::span(decoded).first(size));
  };
  for (size_t row = 0; row * n < weights.size(); ++row) {
    LaneSums sums{};
    for (size_t at = 0; at < n; at += kPieceWeights) {
      const size_t size = std::min(kPieceWeights, n - at);
      const size_t first = row * n + at;
      const auto original = weights.subspan(first, size);
      const auto written = std::span(decoded).first(size);
      decode(first, size);
      add_squared_differences(original, written, sums);
      result.exact = result.exact && std::memcmp(original.data(), written.data(), size * sizeof(float)) == 0;
    }
    const double sum = total(sums);
    if (std::isfinite(sum)) {
      result.squared_error.add(sum);
    } else if (result.nonfinite_row < 0) {
      result.nonfinite_row = static_cast<int64_t>(row);
    }
    if (!can_cut(dtype) || sum < kLeastCutError) continue;
    for (size_t at = 0; at < n; at += kPieceWeights) {
      const size_t size = std::min(kPieceWeights, n - at);
      decode(row * n + at, size);
      for (size_t i = 0; i < size; ++i) {
        const float original = weights[row * n + at + i];
        if (is_cut(dtype, original, decoded[i])) result.cut.add({1, static_cast<double>(original)});
      }
    }
  }
  return result;
}

}  // namespace quern
