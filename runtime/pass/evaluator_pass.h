#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/blocks/workspace.h"
#include "runtime/pass/evaluator.h"

namespace quern {

// Buffers of a pass, for evaluator*.cc only. Those of one batch are reused by all batches and layers; the others hold what a layer
// hands from its attention half to its experts.
struct Evaluator::Pass {
  FloatBuffer x;    // states of the current batch [n, state_width], when they are in a file
  FloatBuffer y;    // input of the current sublayer [n, hidden]
  FloatBuffer out;  // its output [n, hidden]
  Workspace work;
  std::map<size_t, LayerCache> open_caches;  // of sequences that begin in this batch or began in the one before
  std::vector<LayerCache> idle_caches;

  TokenStore normal;             // MoE input of all tokens [n_rows, hidden]
  TokenStore sum;                // MoE output of all tokens [n_rows, hidden]
  std::vector<HyperMix> mixes;   // of the MoE sublayer, all tokens
  std::vector<int32_t> experts;  // [n_rows, n_used]
  std::vector<float> weights;    // [n_rows, n_used]
};

inline std::string block_name(int64_t layer, std::string_view name) { return "blk." + std::to_string(layer) + "." + std::string(name); }

inline bool is_expert_stack(std::string_view name) { return name.ends_with("_exps.weight"); }

// Rows of routed experts that are multiplied together: bounds the buffers of the expert half of a layer.
inline constexpr int64_t kExpertRows = 4096;
// Rows of one expert that an observer is told about in one call.
inline constexpr int64_t kExpertPiece = 1024;

}  // namespace quern
