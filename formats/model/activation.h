#pragma once

namespace quern {

// What a feed-forward network does between its two products.
enum class Activation {
  kSilu,   // silu(min(gate, limit)) * clamp(up, -limit, limit); limit 0: no clamps
  kGptOss  // g sigmoid(1.702 g) (u + 1) with g = min(gate, limit), u = clamp(up, -limit, limit)
};

}  // namespace quern
