#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/statistics/second_moment.h"

namespace quern {

// The second moment H = sum x x^T of the inputs of a linear layer, and what error feedback needs of it.
//
// A layer's output error is sum over its rows of (w - y) H (w - y)^T, w being the row and y what the decoder makes of its blocks. With
// H = R D R^T, R unit upper triangular and D diagonal, this is sum over columns j of
//
//     D_j (e_j)^2,   e_j = (w_j + sum over k < j of (w_k - y_k) R_kj) - y_j
//
// so columns can be rounded one after the other: each aims at its weight plus a known combination of the errors made before it, and
// what it cannot hit costs D_j times its square, whatever comes later. D_j is the variance of input j that the inputs after it do not
// explain. (GPTQ, Frantar et al. 2022; in this form LDLQ, Chee et al. 2023.)

// The weight in [0, 1] that `target` gets in `(1 - w) sample + w target` so that the expected squared distance to the true second moment
// is least (Ledoit and Wolf 2004, with any fixed target): w = var / distance^2, var being the sampling variance of `sample`.
double shrinkage(const SecondMoment& sample, std::span<const float> target);

// Moves `sample` towards `common` (of the same columns) by shrinkage(); a sample without rows becomes `common`. Returns the weight.
double shrink_towards(SecondMoment& sample, const SecondMoment& common);

struct FeedbackFactor {
  static constexpr int64_t kTile = 256;  // columns that are rounded together

  int64_t n_columns = 0;
  double damping = 0;    // what was added to the diagonal, as a share of its mean
  double condition = 0;  // largest D over smallest D
  std::vector<float> r;  // per tile of columns [c, c + n): rows 0 .. c + n - 1 of R, n floats each
  std::vector<float> d;  // per column

  int64_t tile_columns(int64_t tile) const noexcept { return std::min(kTile, n_columns - tile * kTile); }
  int64_t n_tiles() const noexcept { return (n_columns + kTile - 1) / kTile; }
  // Rows 0 .. tile * kTile + tile_columns(tile) - 1 of R in the tile's columns.
  const float* tile(int64_t tile) const noexcept { return r.data() + tile_offset(tile); }
  static size_t tile_offset(int64_t tile) noexcept { return static_cast<size_t>(kTile * kTile * tile * (tile + 1) / 2); }
};

// Factorises H plus damping on its diagonal: shrinkage towards the diagonal's mean, at least kLeastDamping, and ten times as much as
// long as a pivot is not safely positive. Columns that were never active get the mean. Throws kFormat when H is not finite or when no
// damping up to 1 helps. Parallel; the same bits for every number of threads and CPU.
inline constexpr double kLeastDamping = 0.01;
FeedbackFactor factorise(const SecondMoment& moment, double least_damping = kLeastDamping);

}  // namespace quern
