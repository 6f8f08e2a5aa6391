#include "quantize/feedback/feedback_shift.h"

#include <algorithm>
#include <vector>

#include "formats/base/error.h"
#include "quantize/feedback/feedback_tile.h"

// The corrections are w S times the inverse of H' = R D R^T. After the product with S, which is computed as if S were one wide tile of R,
// the inverse is two triangular solves around a division by D, a tile of 256 columns at a time: inside a tile one column after the other,
// between tiles as products of whole tiles. Sixteen rows lie side by side, so that each step is one vector operation.

namespace quern {
namespace {

constexpr int64_t kRows = 16;  // side by side

// Solves z (R D R^T) = v for 16 rows, [n][16], in place.
class Solver {
 public:
  explicit Solver(const FeedbackFactor& factor) : factor_(factor), sums_(static_cast<size_t>(FeedbackFactor::kTile * kRows)) {}

  void solve(std::vector<float>& v) {
    for (int64_t tile = factor_.n_tiles() - 1; tile >= 0; --tile) backward(tile, v.data());
    for (int64_t j = 0; j < factor_.n_columns; ++j) {
      for (int64_t i = 0; i < kRows; ++i) v[static_cast<size_t>(j * kRows + i)] /= factor_.d[static_cast<size_t>(j)];
    }
    for (int64_t tile = 0; tile < factor_.n_tiles(); ++tile) forward(tile, v.data());
  }

 private:
  // a R^T = v, from the right.
  void backward(int64_t tile, float* v) const {
    const int64_t first = tile * FeedbackFactor::kTile, n = factor_.tile_columns(tile);
    const float* r = factor_.tile(tile);
    for (int64_t j = n - 1; j >= 0; --j) {
      for (int64_t k = j + 1; k < n; ++k) subtract(r[(first + j) * n + k], v + (first + k) * kRows, v + (first + j) * kRows);
    }
    subtract_transposed(r, n, v + first * kRows, first, v);
  }

  // z R = u, from the left.
  void forward(int64_t tile, float* v) {
    const int64_t first = tile * FeedbackFactor::kTile, n = factor_.tile_columns(tile);
    const float* r = factor_.tile(tile);
    std::fill(sums_.begin(), sums_.end(), 0.0f);
    add_feedback(r, n, v, first, sums_.data());
    for (int64_t j = 0; j < n; ++j) {
      subtract(1.0f, sums_.data() + j * kRows, v + (first + j) * kRows);
      for (int64_t k = 0; k < j; ++k) subtract(r[(first + k) * n + j], v + (first + k) * kRows, v + (first + j) * kRows);
    }
  }

  static void subtract(float factor, const float* from, float* to) {
    for (int64_t i = 0; i < kRows; ++i) to[i] -= factor * from[i];
  }

  const FeedbackFactor& factor_;
  std::vector<float> sums_;
};

}  // namespace

void shift_corrections(std::span<const float> w, int64_t n_rows, const FeedbackFactor& factor, std::span<const float> shift,
                       std::span<float> corrections) {
  const int64_t n = factor.n_columns;
  QUERN_CHECK(w.size() == static_cast<size_t>(n_rows * n) && corrections.size() == w.size());
  QUERN_CHECK(shift.size() == static_cast<size_t>(n * n));
  Solver solver(factor);
  std::vector<float> rows(static_cast<size_t>(n * kRows)), v(rows.size());
  for (int64_t row = 0; row < n_rows; row += kRows) {
    const int64_t n_here = std::min(kRows, n_rows - row);
    std::fill(rows.begin(), rows.end(), 0.0f);
    std::fill(v.begin(), v.end(), 0.0f);
    for (int64_t i = 0; i < n_here; ++i) {
      for (int64_t j = 0; j < n; ++j) rows[static_cast<size_t>(j * kRows + i)] = w[static_cast<size_t>((row + i) * n + j)];
    }
    add_feedback(shift.data(), n, rows.data(), n, v.data());
    solver.solve(v);
    for (int64_t i = 0; i < n_here; ++i) {
      for (int64_t j = 0; j < n; ++j) corrections[static_cast<size_t>((row + i) * n + j)] = v[static_cast<size_t>(j * kRows + i)];
    }
  }
}

}  // namespace quern
