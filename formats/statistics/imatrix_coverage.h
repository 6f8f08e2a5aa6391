#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/statistics/imatrix.h"

namespace quern {

// What an importance matrix has seen of one layer: what a person wants to know before trusting it.
struct LayerCoverage {
  int64_t layer = -1;  // -1: what is outside the blocks
  int64_t n_entries = 0;
  int64_t n_rows = 0;            // most rows that any weight of the layer has seen; of a .dat, chunks
  int64_t n_values = 0;          // columns of all slices that were seen
  int64_t n_unused = 0;          // of those, columns that were always zero
  int64_t n_not_finite = 0;      // of those, NaN, infinite or negative
  std::vector<int64_t> experts;  // rows that each expert has seen; empty when the layer has none or the file does not say
};

// One per layer, ascending.
std::vector<LayerCoverage> coverage_of(const Imatrix& imatrix);

}  // namespace quern
