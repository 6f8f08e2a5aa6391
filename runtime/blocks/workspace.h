#pragma once

#include <map>
#include <tuple>

#include "runtime/blocks/rope.h"
#include "runtime/math/float_buffer.h"

namespace quern {

// Intermediates of one batch of tokens, kept from layer to layer because fresh memory costs page faults. Every buffer is used by one
// step of a block at a time; blocks name them after what the step keeps there.
struct Workspace {
  FloatBuffer states;         // of the batch [n, state_width], when they are in a file
  FloatBuffer input, output;  // of a sublayer [n, hidden]
  FloatBuffer packed_input;
  FloatBuffer query, key, value;
  FloatBuffer packed_keys;  // of attention, values included
  FloatBuffer mixed, packed_mixed;
  FloatBuffer gate, up, packed_gated;

  // The table of n positions from `first`; kept until other positions than the last few are asked for.
  const RopeTable& rope_table(const RopeParams& rope, std::span<const double> frequencies, int64_t first, int64_t n) {
    constexpr size_t kKept = 8;
    const std::tuple place(&rope, first, n);
    if (const auto found = tables_.find(place); found != tables_.end()) return found->second;
    if (tables_.size() >= kKept) tables_.clear();
    return tables_.emplace(place, RopeTable(rope, frequencies, first, n)).first->second;
  }

 private:
  std::map<std::tuple<const RopeParams*, int64_t, int64_t>, RopeTable> tables_;
};

}  // namespace quern
