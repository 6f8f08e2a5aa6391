#include "quantize/feedback/feedback.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "formats/base/error.h"
#include "quantize/feedback/feedback_tile.h"

// Sixteen rows go from left to right together, a tile of 256 columns at a time. Before a tile its aims are made: the weights plus what the
// errors of all columns before it ask for, one product of those errors with a part of R (feedback_product_simd.cc) that serves the
// sixteen rows at once. Then each row's tile is encoded by the function of its type, which hands on errors inside the tile by itself and
// returns those that are left. So a type's encoder never sees more than one tile of one row, and all that is specific to a type is there.
//
// A row that leaves the finite numbers is taken out and encoded plainly: its blocks are good ones, only without feedback.

namespace quern {
namespace {

constexpr int64_t kRows = 16;  // rows of weights side by side in the product
constexpr int64_t kTile = FeedbackFactor::kTile;
constexpr float kLargest = 0x1p60f;  // squares of larger weights may overflow

struct TileType {
  TileEncoder encode_tile = nullptr;
  FeedbackKind kind = FeedbackKind::kNone;
};

TileType find_tile_type(DType dtype) noexcept {
  using enum FeedbackKind;
  switch (dtype) {
#define QUERN_TILE_CASE(name, revision, feedback, bytes)                            \
  case DType::name:                                                                 \
    if constexpr (feedback != kNone) return TileType{encode_tile_##name, feedback}; \
    break;
    QUERN_ENCODERS(QUERN_TILE_CASE)
#undef QUERN_TILE_CASE
    default:
      break;
  }
  return {};
}

// Up to 16 rows from left to right.
class FedRows {
 public:
  FedRows(DType dtype, const TileType& tile_type, const FeedbackFactor& factor, Effort effort)
      : dtype_(dtype),
        type_(traits(dtype)),
        tile_type_(tile_type),
        factor_(factor),
        effort_(effort),
        errors_(static_cast<size_t>(factor.n_columns * kRows)),
        sums_(static_cast<size_t>(kTile * kRows)),
        shifted_(static_cast<size_t>(kTile * kRows)),
        starts_(static_cast<size_t>(kRows * bytes_of(kTile))) {}

  // x: n rows; out: their blocks. Returns a bit per row: set where the arithmetic left the finite numbers.
  uint32_t encode(const float* x, int64_t n, std::byte* out) {
    const int64_t n_cols = factor_.n_columns;
    std::fill(errors_.begin(), errors_.end(), 0.0f);
    uint32_t failed = 0;
    for (int64_t tile = 0; tile < factor_.n_tiles(); ++tile) {
      const int64_t first = tile * kTile;
      const int64_t columns = factor_.tile_columns(tile);
      std::fill(sums_.begin(), sums_.end(), 0.0f);
      add_feedback(factor_.tile(tile), columns, errors_.data(), first, sums_.data());
      for (int64_t i = 0; i < n; ++i) {
        if (!shift(tile, x + i * n_cols + first, i)) failed |= 1u << i;
      }
      if (tile_type_.kind == FeedbackKind::kFromPlain) {
        encode_rows(dtype_, std::span(shifted_).first(static_cast<size_t>(n * columns)), n, columns,
                    std::span(factor_.d).subspan(static_cast<size_t>(first), static_cast<size_t>(columns)),
                    std::span(starts_).first(static_cast<size_t>(n * bytes_of(columns))));
      }
      for (int64_t i = 0; i < n; ++i) {
        if ((failed >> i & 1) == 0) encode_row_tile(tile, x + i * n_cols + first, i, out + i * bytes_of(n_cols) + bytes_of(first));
      }
    }
    return failed;
  }

 private:
  int64_t bytes_of(int64_t columns) const { return columns / type_.block_weights * type_.block_bytes; }

  // What the errors of all earlier tiles ask of row i. False, and zeros, where the arithmetic left the finite numbers.
  bool shift(int64_t tile, const float* x, int64_t i) {
    const int64_t columns = factor_.tile_columns(tile);
    float* shifted = shifted_.data() + i * columns;
    for (int64_t j = 0; j < columns; ++j) {
      shifted[j] = x[j] + sums_[static_cast<size_t>(j * kRows + i)];
      if (std::fabs(shifted[j]) < kLargest && std::fabs(x[j]) < kLargest) continue;
      std::fill_n(shifted, columns, 0.0f);
      return false;
    }
    return true;
  }

  void encode_row_tile(int64_t tile, const float* x, int64_t i, std::byte* out) {
    const int64_t first = tile * kTile;
    const int64_t columns = factor_.tile_columns(tile);
    float errors[kTile];
    const FeedbackTile given{static_cast<int>(columns),     x,
                             shifted_.data() + i * columns, factor_.tile(tile) + first * columns,
                             factor_.d.data() + first,      starts_.data() + i * bytes_of(columns)};
    tile_type_.encode_tile(given, effort_, out, errors);
    for (int64_t j = 0; j < columns; ++j) errors_[static_cast<size_t>((first + j) * kRows + i)] = errors[j];
  }

  DType dtype_;
  const DTypeTraits& type_;
  TileType tile_type_;
  const FeedbackFactor& factor_;
  Effort effort_;
  std::vector<float> errors_;      // [n_cols][16]
  std::vector<float> sums_;        // [256][16]
  std::vector<float> shifted_;     // [16][columns of the tile]
  std::vector<std::byte> starts_;  // blocks of shifted_
};

}  // namespace

bool has_feedback_encoder(DType dtype) noexcept { return find_tile_type(dtype).encode_tile != nullptr; }

void encode_rows_feedback(DType dtype, std::span<const float> x, int64_t n_rows, int64_t n_cols, const FeedbackFactor& factor,
                          Effort effort, std::span<std::byte> out) {
  const TileType tile_type = find_tile_type(dtype);
  if (tile_type.encode_tile == nullptr) throw Error(ErrorKind::kInternal, std::string(name_of(dtype)) + " has no encoder with feedback");
  const DTypeTraits& type = traits(dtype);
  QUERN_CHECK(factor.n_columns == n_cols && n_cols % type.block_weights == 0);
  QUERN_CHECK(x.size() == static_cast<size_t>(n_rows * n_cols));
  const int64_t row_bytes = n_cols / type.block_weights * type.block_bytes;
  QUERN_CHECK(out.size() == static_cast<size_t>(n_rows * row_bytes));
  FedRows rows(dtype, tile_type, factor, effort);
  for (int64_t row = 0; row < n_rows; row += kRows) {
    const int64_t n = std::min(kRows, n_rows - row);
    const uint32_t failed = rows.encode(x.data() + row * n_cols, n, out.data() + row * row_bytes);
    for (int64_t i = 0; i < n; ++i) {
      if ((failed >> i & 1) == 0) continue;
      const auto begin = static_cast<size_t>(row + i);
      encode_rows(dtype, x.subspan(begin * static_cast<size_t>(n_cols), static_cast<size_t>(n_cols)), 1, n_cols, factor.d,
                  out.subspan(begin * static_cast<size_t>(row_bytes), static_cast<size_t>(row_bytes)), effort);
    }
  }
}

void feedback_errors(std::span<const float> x, std::span<const float> y, int64_t n_rows, const FeedbackFactor& factor,
                     std::span<double> errors) {
  const int64_t n = factor.n_columns;
  QUERN_CHECK(x.size() == static_cast<size_t>(n_rows * n) && y.size() == x.size() && errors.size() == static_cast<size_t>(n_rows));
  std::vector<double> e(static_cast<size_t>(n));
  for (int64_t row = 0; row < n_rows; ++row) {
    std::fill(e.begin(), e.end(), 0.0);
    for (int64_t tile = 0; tile < factor.n_tiles(); ++tile) {
      const int64_t first = tile * kTile;
      const int64_t columns = factor.tile_columns(tile);
      for (int64_t k = 0; k < first + columns; ++k) {
        const auto at = static_cast<size_t>(row * n + k);
        const double apart = static_cast<double>(x[at]) - static_cast<double>(y[at]);
        const float* r = factor.tile(tile) + k * columns;
        for (int64_t c = 0; c < columns; ++c) e[static_cast<size_t>(first + c)] += apart * static_cast<double>(r[c]);
      }
    }
    double sum = 0.0;
    for (size_t j = 0; j < e.size(); ++j) sum += static_cast<double>(factor.d[j]) * e[j] * e[j];
    errors[static_cast<size_t>(row)] = sum;
  }
}

}  // namespace quern
