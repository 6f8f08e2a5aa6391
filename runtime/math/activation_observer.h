#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

#include "runtime/math/packed_rows.h"

namespace quern {

// Rows that are multiplied by some of the model's weights, as the runtime is about to multiply them.
struct ObservedInput {
  // GGUF names of the weights that share this input: "blk.3.ffn_gate_exps.weight" and "blk.3.ffn_up_exps.weight".
  std::span<const std::string_view> weights;
  // Which slice of those weights: the expert of a stack, the head of attn_k_b and attn_v_b, the group of attn_output_a; -1: all rows of
  // the weight. Rows and columns of a weight are those of its GGUF tensor; the slices divide its rows evenly.
  int64_t slice = -1;
  const PackedRows* rows = nullptr;  // [n, n_columns]; panels of 16 rows, missing rows are zeros
  // For routed experts, the router's weight of each row: its share in what the block adds to the state. Empty otherwise.
  std::span<const float> shares;
};

// Told about the input of every product of the forward pass: importance matrices and second moments are collected this way.
//
// Calls come one at a time from the thread that runs the layers, in an order that depends only on model and sequences: layer by layer,
// in each the sequences in tiles of kQueryTile tokens, then the experts ascending. Rows are never split differently by memory or
// threads, so sums taken in the order of the calls are the same bits everywhere. An observer may use parallel_for inside a call.
//
// What is seen by tensor: products with the same input come in one call. attn_k_b: the queries' part that is not rotated, per head
// (its columns; the runtime itself multiplies the other way round). attn_v_b: the attention-weighted mean of latents, per head.
// attn_kv_b: the latents. hc_*_fn: the normalised streams. output.weight, or token_embd.weight in models without it: the final states.
// token_embd.weight has no input otherwise, nor have vectors and tables.
class ActivationObserver {
 public:
  virtual ~ActivationObserver() = default;
  virtual void observe(const ObservedInput& input) = 0;
};

}  // namespace quern
