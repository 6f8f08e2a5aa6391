#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/panel_product.h"

namespace quern {

// A run of keys and values that a panel of queries may attend to. Either a causal run of consecutive positions, or a list with an
// explicit mask (compressed entries).
struct KeySegment {
  const float* keys = nullptr;  // [count, key_dim], rows key_stride apart
  int64_t key_stride = 0;
  const float* values = nullptr;  // [count, value_dim], rows value_stride apart
  int64_t value_stride = 0;
  int64_t count = 0;
  int64_t first_position = 0;        // position of key 0
  int64_t window = 0;                // key j is visible to query t iff j <= t and (window == 0 or t - j < window)
  const uint8_t* visible = nullptr;  // [count][16], replaces the rule above
};

// The part of a causal run of `n_keys` keys that starts at position 0 which any of the queries can see.
KeySegment causal_segment(KeySegment run, int64_t n_keys, int64_t window, int64_t first_query, int64_t n_queries);

struct QueryPanel {
  const float* q = nullptr;    // [key_dim][16]
  int64_t n_queries = 0;       // of the 16 lanes
  int64_t first_position = 0;  // of lane 0; lanes are consecutive positions
};

struct AttentionShape {
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  double scale = 0.0;
  const float* sink = nullptr;  // an extra logit without a value, not scaled; nullptr: none
};

// Softmax attention of up to 16 queries of one head, in this order: scores by `product`, scale, maximum (sink included), exponentials
// and their sum in double in key order, weights rounded to float, weighted sum of values by `product` per segment, segments added in
// order, one division. Memory: one float per key and lane, in `scratch`. out: [value_dim][16]; lanes without a query are zero.
void attend(PanelProduct product, const AttentionShape& shape, const QueryPanel& queries, std::span<const KeySegment> segments,
            std::vector<float>& scratch, float* out);

}  // namespace quern
