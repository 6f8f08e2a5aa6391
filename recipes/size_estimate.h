#pragma once

#include <cstdint>
#include <span>

#include "formats/gguf/metadata.h"
#include "formats/model/model_source.h"
#include "formats/types/dtype.h"

namespace quern {

// What a build costs at run time: memory for weights, cache and scratch, and the bytes that one generated token must read. Formulas and
// their sources: docs/plan.md. Counts of cells and types are those of llama.cpp with its defaults: F16 cache, batches of 512 tokens.

struct WeightCost {
  int64_t n_weights = 0;
  uint64_t always_bytes = 0;         // read for every token: everything but the two below
  uint64_t expert_bytes = 0;         // all routed experts
  uint64_t active_expert_bytes = 0;  // those that one token uses
  uint64_t embedding_bytes = 0;      // of an embedding that is not the output matrix too: one row per token

  uint64_t total_bytes() const noexcept { return always_bytes + expert_bytes + embedding_bytes; }
  uint64_t active_bytes() const noexcept { return always_bytes + active_expert_bytes; }
};

struct CacheCost {
  uint64_t size_bytes = 0;
  uint64_t read_bytes = 0;  // by a token at the end of the context
};

struct RunCost {
  WeightCost weights;
  CacheCost cache;
  uint64_t scratch_bytes = 0;

  uint64_t total_bytes() const noexcept { return weights.total_bytes() + cache.size_bytes + scratch_bytes; }
};

// types: one per tensor.
WeightCost weight_cost(const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types);

// Keys and values of n_context tokens of one sequence, by architecture: grouped heads, MLA's latent, windows, and DeepSeek-V4's compressed
// entries with their indexer keys and rolling state.
CacheCost cache_cost(const Metadata& metadata, int64_t n_context);

// Buffers of one batch: logits, the widest activations, scores of V4's indexer. An estimate.
uint64_t scratch_bytes(const Metadata& metadata, std::span<const LogicalTensor> tensors, int64_t n_context);

RunCost run_cost(const Metadata& metadata, std::span<const LogicalTensor> tensors, std::span<const DType> types, int64_t n_context);

}  // namespace quern
