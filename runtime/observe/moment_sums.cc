#include "runtime/observe/moment_sums.h"

#include <algorithm>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "runtime/observe/moment_product.h"

// Rows leave their panels first: scaled by their share, either into the batch to be multiplied or among the held ones. The batch is
// multiplied in blocks of 256 rows, cut into runs of 16 columns so that a tile of the product reads two short stretches of memory. A block
// is summed in float and added to the doubles, which bounds the rounding by the block and not by the length of the text. A thread owns
// whole rows of tiles, so nobody else adds to its sums. x x^T is symmetric and only its lower half is kept; (x - x') x'^T is not and is
// kept whole.

namespace quern {
namespace {

constexpr int64_t kHeldEvery = 8;

// A row of a panel times its share, appended.
void append_row(const float* panel, int64_t lane, int64_t n_columns, float share, std::vector<float>& rows) {
  for (int64_t j = 0; j < n_columns; ++j) rows.push_back(share * panel[j * kPanelWidth + lane]);
}

// [tile][row][16] of some of the rows; columns that there are not are zeros.
std::vector<float> cut_columns(const std::vector<float>& rows, int64_t n_columns, int64_t first_row, int64_t n_rows) {
  const int64_t n_tiles = (n_columns + kMomentTile - 1) / kMomentTile;
  std::vector<float> tiles(static_cast<size_t>(n_tiles * n_rows * kMomentTile));
  for (int64_t t = 0; t < n_rows; ++t) {
    const float* row = rows.data() + (first_row + t) * n_columns;
    for (int64_t j = 0; j < n_columns; ++j)
      tiles[static_cast<size_t>((j / kMomentTile * n_rows + t) * kMomentTile + j % kMomentTile)] = row[j];
  }
  return tiles;
}

std::vector<float> mean_of(const std::vector<double>& sums, int64_t n_rows) {
  std::vector<float> mean;
  mean.reserve(sums.size());
  const double scale = n_rows > 0 ? 1.0 / static_cast<double>(n_rows) : 0.0;
  for (const double sum : sums) mean.push_back(static_cast<float>(sum * scale));
  return mean;
}

void add_all(const std::vector<double>& from, std::vector<double>& to) {
  for (size_t k = 0; k < from.size(); ++k) to[k] += from[k];
}

}  // namespace

MomentSums::MomentSums(int64_t n_columns, bool sequential) : n_columns_(n_columns), sequential_(sequential) {
  half_.resize(half_position(n_columns, 0));
  if (sequential) shift_.resize(static_cast<size_t>(n_columns * n_columns));
  held_.n_columns = n_columns;
  if (sequential) held_original_.n_columns = n_columns;
}

void MomentSums::add(const PackedRows& rows, std::span<const float> shares, const PackedRows* original) {
  QUERN_CHECK(rows.n_columns() == n_columns_ && (original != nullptr) == sequential_);
  std::vector<float> scaled, differences;
  for (int64_t p = 0; p < rows.n_panels(); ++p) {
    const bool hold = ++n_panels_ % kHeldEvery == 0;
    const int64_t n = std::min(kPanelWidth, rows.n_rows() - p * kPanelWidth);
    for (int64_t lane = 0; lane < n; ++lane) {
      const float share = shares.empty() ? 1.0f : shares[static_cast<size_t>(p * kPanelWidth + lane)];
      if (hold) {
        if (held_.n_rows() == kMostHeld) break;
        append_row(rows.panel(p), lane, n_columns_, share, held_.rows);
        if (sequential_) append_row(original->panel(p), lane, n_columns_, share, held_original_.rows);
        continue;
      }
      append_row(rows.panel(p), lane, n_columns_, share, scaled);
      if (sequential_) append_row(original->panel(p), lane, n_columns_, share, differences);
      ++n_rows_;
    }
  }
  for (size_t first = 0; first < scaled.size(); first += static_cast<size_t>(n_columns_)) {
    double norm = 0.0;
    for (size_t j = first; j < first + static_cast<size_t>(n_columns_); ++j)
      norm += static_cast<double>(scaled[j]) * static_cast<double>(scaled[j]);
    fourth_ += norm * norm;
  }
  for (size_t k = 0; k < differences.size(); ++k) differences[k] -= scaled[k];
  add_products(scaled, differences);
}

template <typename Place>
void MomentSums::add_tile(const float* tile, int64_t ti, int64_t tj, Place place) const {
  const int64_t i_end = std::min(n_columns_, (ti + 1) * kMomentTile), j_end = std::min(n_columns_, (tj + 1) * kMomentTile);
  for (int64_t i = ti * kMomentTile; i < i_end; ++i) {
    for (int64_t j = tj * kMomentTile; j < j_end; ++j) {
      double* sum = place(i, j);
      if (sum != nullptr) *sum += static_cast<double>(tile[(i - ti * kMomentTile) * kMomentTile + j - tj * kMomentTile]);
    }
  }
}

void MomentSums::add_products(const std::vector<float>& rows, const std::vector<float>& differences) {
  constexpr int64_t kBlock = 256;  // rows that are summed in float
  const int64_t n_rows = std::ssize(rows) / n_columns_, n_tiles = (n_columns_ + kMomentTile - 1) / kMomentTile;
  for (int64_t first = 0; first < n_rows; first += kBlock) {
    const int64_t n = std::min(kBlock, n_rows - first);
    const std::vector<float> tiles = cut_columns(rows, n_columns_, first, n);
    const std::vector<float> shifts = sequential_ ? cut_columns(differences, n_columns_, first, n) : std::vector<float>();
    const auto tile = [&](const std::vector<float>& all, int64_t k) { return all.data() + k * n * kMomentTile; };
    parallel_for(n_tiles, 1, [&](int64_t begin, int64_t end) {
      float out[kMomentTile * kMomentTile];
      for (int64_t ti = begin; ti < end; ++ti) {
        for (int64_t tj = 0; tj <= ti; ++tj) {
          moment_tile(tile(tiles, ti), tile(tiles, tj), n, out);
          add_tile(out, ti, tj, [&](int64_t i, int64_t j) { return j <= i ? half_.data() + half_position(i, j) : nullptr; });
        }
        for (int64_t tj = 0; sequential_ && tj < n_tiles; ++tj) {
          moment_tile(tile(shifts, ti), tile(tiles, tj), n, out);
          add_tile(out, ti, tj, [&](int64_t i, int64_t j) { return shift_.data() + i * n_columns_ + j; });
        }
      }
    });
  }
}

void MomentSums::add(const MomentSums& slice) {
  if (n_columns_ == 0) *this = MomentSums(slice.n_columns_, slice.sequential_);
  add_all(slice.half_, half_);
  add_all(slice.shift_, shift_);
  n_rows_ += slice.n_rows_;
  fourth_ += slice.fourth_;
}

InputStatistics MomentSums::statistics() const {
  return {{n_columns_, n_rows_, fourth_, mean_of(half_, n_rows_)}, held_, mean_of(shift_, n_rows_), held_original_};
}

}  // namespace quern
