#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "runtime/math/packed_rows.h"
#include "runtime/pass/token_store.h"

namespace quern {

// Inputs of products in the order in which they were seen, in memory or in an unnamed temporary file.
class RowLog {
 public:
  explicit RowLog(bool in_file) : in_file_(in_file) {
    if (in_file) file_ = TokenStore(kMostFloats, 1, true);
  }

  size_t add(const PackedRows& rows);  // its number
  PackedRows get(size_t number) const;

 private:
  static constexpr int64_t kMostFloats = int64_t{1} << 56;
  struct Place {
    int64_t offset, n_rows, n_columns;
  };
  bool in_file_;
  std::deque<PackedRows> rows_;
  TokenStore file_;
  std::vector<Place> places_;
  int64_t n_floats_ = 0;
};

}  // namespace quern
