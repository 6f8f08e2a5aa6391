#include "runtime/math/product.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "runtime/math/product_float.h"
#include "runtime/math/product_tiles.h"

namespace quern {

Arithmetic fastest_arithmetic() {
  static const Arithmetic fastest = [] {
    const char* wanted = std::getenv("QUERN_ARITHMETIC");
    if (wanted != nullptr && std::string_view(wanted) == "float") return Arithmetic::kFloat;
    return tiles_are_available() ? Arithmetic::kTiles : Arithmetic::kFloat;
  }();
  return fastest;
}

const char* name_of(Arithmetic arithmetic) noexcept {
  switch (arithmetic) {
    case Arithmetic::kPlain:
      return "plain";
    case Arithmetic::kFloat:
      return "float";
    case Arithmetic::kTiles:
      return "tiles";
  }
  return "";
}

double product_bound(Arithmetic arithmetic, int64_t n_k, bool exact_weights) noexcept {
  const double u = std::ldexp(1.0, -24);
  switch (arithmetic) {
    case Arithmetic::kPlain:
      return 1.01 * u;
    case Arithmetic::kFloat: {
      const auto in_block = static_cast<double>(std::min(n_k, kSumBlock));
      const auto n_blocks = static_cast<double>((n_k + kSumBlock - 1) / kSumBlock);
      return 1.01 * (in_block + n_blocks + 1.0) * u;
    }
    case Arithmetic::kTiles: {
      const auto n_steps = static_cast<double>(padded_k(n_k) / kStep);
      return 1.01 * ((17.0 + 3.0 * n_steps) * u + (exact_weights ? 1.0 : 3.0) * std::ldexp(1.0, -18));
    }
  }
  return 0.0;
}

PackedMatrix pack_columns_float(const Rows& columns, float* out) noexcept {
  const int64_t n_k = padded_k(columns.n_rows);
  float* panel = out;
  for (int64_t first = 0; first < columns.n_columns; first += kPanelWidth, panel += n_k * kPanelWidth) {
    const int64_t n = std::min(kPanelWidth, columns.n_columns - first);
    for (int64_t k = 0; k < n_k; ++k) {
      float* step = panel + k * kPanelWidth;
      const int64_t n_copied = k < columns.n_rows ? n : 0;
      std::copy_n(columns.data + k * columns.stride + first, n_copied, step);
      std::fill(step + n_copied, step + kPanelWidth, 0.0f);
    }
  }
  return {out, columns.n_columns, n_k};
}

void multiply_plain(const PackedMatrix& x, const PackedMatrix& w, int64_t n_k, float* y, int64_t stride) noexcept {
  for (int64_t i = 0; i < x.n; ++i) {
    const float* row = x.data + i / kPanelWidth * kPanelWidth * x.n_k + i % kPanelWidth;
    for (int64_t first = 0; first < w.n; first += kPanelWidth) {
      const float* panel = w.data + first * w.n_k;
      std::array<double, kPanelWidth> sum{};
      for (int64_t k = 0; k < n_k; ++k) {
        const auto value = static_cast<double>(row[k * kPanelWidth]);
        for (size_t o = 0; o < sum.size(); ++o) sum[o] += value * static_cast<double>(panel[static_cast<size_t>(k * kPanelWidth) + o]);
      }
      const int64_t n = std::min(kPanelWidth, w.n - first);
      for (int64_t o = 0; o < n; ++o) y[i * stride + first + o] = static_cast<float>(sum[static_cast<size_t>(o)]);
    }
  }
}

const ProductKernel& product_kernel(Arithmetic arithmetic) {
  static const ProductKernel kPlainKernel = {Arithmetic::kPlain, pack_rows_float, pack_rows_float, pack_columns_float, multiply_plain};
  static const ProductKernel kFloatKernel = {Arithmetic::kFloat, pack_rows_float, pack_rows_float, pack_columns_float, multiply_float};
  static const ProductKernel kTileKernel = {Arithmetic::kTiles, pack_rows_tiles, pack_weights_tiles, pack_columns_tiles, multiply_tiles};
  switch (arithmetic) {
    case Arithmetic::kPlain:
      return kPlainKernel;
    case Arithmetic::kFloat:
      return kFloatKernel;
    case Arithmetic::kTiles:
      return kTileKernel;
  }
  return kFloatKernel;
}

}  // namespace quern
