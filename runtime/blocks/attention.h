#pragma once

#include <cstdint>
#include <span>

#include "runtime/math/float_buffer.h"
#include "runtime/math/product.h"

namespace quern {

// A run of keys and values that a panel of queries may attend to. Either a causal run of consecutive positions, or a list with an
// explicit mask (compressed entries). Packed by the kernel that multiplies them, values by columns.
struct KeySegment {
  PackedMatrix keys;                 // key_dim long
  PackedMatrix values;               // value_dim outputs over the keys
  int64_t count = 0;                 // keys that take part, the first ones
  int64_t first_position = 0;        // position of key 0
  int64_t window = 0;                // key j is visible to query t iff j <= t and (window == 0 or t - j < window)
  const uint8_t* visible = nullptr;  // [count][16], replaces the rule above
};

// The part of a causal run of `n_keys` keys that starts at position 0 which any of the queries can see, from a multiple of kStep on.
KeySegment causal_segment(KeySegment run, int64_t n_keys, int64_t window, int64_t first_query, int64_t n_queries);

struct QueryPanel {
  Rows q;                      // at most 16 rows of key_dim
  int64_t first_position = 0;  // of row 0; rows are consecutive positions
};

struct AttentionShape {
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  double scale = 0.0;           // positive
  const float* sink = nullptr;  // an extra logit without a value, not scaled; nullptr: none
};

// Softmax attention of up to 16 queries of one head, in this order: scores by the kernel, scale, maximum (sink included), exponentials
// and their sum in double (vector_math.h; the keys of all segments one after the other, each segment filled up to a multiple of kStep,
// then the sink), weights rounded to float, weighted sum of values by the kernel per segment, segments added in order, one division.
// Memory: two floats per key and query (attend_floats), in `scratch`. out: value_dim floats per query, rows out_stride apart.
void attend(const ProductKernel& kernel, const AttentionShape& shape, const QueryPanel& queries, std::span<const KeySegment> segments,
            FloatBuffer& scratch, float* out, int64_t out_stride);

// Scores of a panel of queries, and the same packed.
constexpr int64_t attend_floats(int64_t n_keys) noexcept { return n_keys * 2 * kPanelWidth; }

}  // namespace quern
