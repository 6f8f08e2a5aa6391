#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "convert/plan/plan.h"

namespace quern {

// Rows [first_row, first_row + n_rows) of one planned tensor.
struct Chunk {
  size_t tensor = 0;
  int64_t first_row = 0;
  int64_t n_rows = 0;
};

// All chunks of a plan, numbered in the order of the output files. Costs one number per tensor, whatever the number of chunks.
class Chunks {
 public:
  explicit Chunks(const Plan& plan);

  int64_t count() const noexcept { return first_chunk_.back(); }
  Chunk operator[](int64_t index) const;

  // The chunks [first, last) of part k (from 0) of n: cut where the bytes read and written are k/n and (k+1)/n of all. The parts
  // of one n cover every chunk once.
  struct Range {
    int64_t first = 0;
    int64_t last = 0;
  };
  Range part(int64_t k, int64_t n) const;

  // The number of the chunk that begins at a row; count() for the end of the last tensor. Empty when none begins there.
  std::optional<int64_t> beginning_at(size_t tensor, int64_t row) const;

  // Stored bytes that belong to a chunk: its share of the tensor's, exact in the sum over the tensor.
  uint64_t source_bytes(const Chunk& chunk) const;
  uint64_t source_bytes(Range range) const;
  // Bytes of the blocks that a chunk has in an output.
  uint64_t output_bytes(size_t output, const Chunk& chunk) const;
  // Bytes of the output's tensor data that come before the chunk, padding not counted.
  uint64_t data_position(size_t output, int64_t index) const;

 private:
  int64_t cut(int64_t k, int64_t n) const;

  const Plan& plan_;
  std::vector<int64_t> first_chunk_;  // per tensor, and the total at the end
};

}  // namespace quern
