#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/statistics/statistics.h"
#include "runtime/math/packed_rows.h"

namespace quern {

// The statistics of one slice of an input (formats/statistics/statistics.h) while a text goes by. Of every eight panels of 16 rows the last
// is held out of the moments, and at most kMostHeld of these rows are kept. Rows of routed experts are multiplied by the router's weight,
// which is what their outputs are multiplied by. Sums are taken in float over at most 256 rows and then in double, in a fixed order: the
// same bits for any number of threads and on every CPU.
class MomentSums {
 public:
  static constexpr int64_t kMostHeld = 256;

  MomentSums() = default;
  // sequential: every row comes with the original's.
  MomentSums(int64_t n_columns, bool sequential);

  // shares: one per row, or empty for 1. original: the original's rows in the same order, nullptr when not sequential.
  void add(const PackedRows& rows, std::span<const float> shares, const PackedRows* original);
  // Adds what another slice of the same input has seen; rows that were held out stay with their slices.
  void add(const MomentSums& slice);

  InputStatistics statistics() const;

 private:
  void add_products(const std::vector<float>& rows, const std::vector<float>& differences);
  template <typename Place>
  void add_tile(const float* tile, int64_t ti, int64_t tj, Place place) const;

  int64_t n_columns_ = 0;
  bool sequential_ = false;
  int64_t n_rows_ = 0;
  int64_t n_panels_ = 0;  // seen, held out or not
  double fourth_ = 0.0;
  std::vector<double> half_;   // lower triangle
  std::vector<double> shift_;  // [n, n], when sequential
  HeldRows held_, held_original_;
};

}  // namespace quern
