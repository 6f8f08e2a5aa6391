#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/model/hparams.h"
#include "runtime/math/activation_observer.h"
#include "runtime/math/product.h"
#include "runtime/math/weights.h"

namespace quern {

struct Sequence {
  std::vector<int32_t> tokens;
  // Rounds the inputs and outputs of every sublayer to BF16: a perturbation of the size that every BF16 engine makes, used to measure
  // the noise floor of a comparison.
  bool rounded = false;
};

struct EvalOptions {
  uint64_t memory_bytes = uint64_t{8} << 30;
  Arithmetic arithmetic = fastest_arithmetic();
  bool keep_caches = false;                // keep keys and values of all layers, for generation
  ActivationObserver* observer = nullptr;  // told about the inputs of all products, the output matrix included
};

struct EvalPlan {
  int64_t n_tokens = 0;
  uint64_t state_bytes = 0;   // hidden states of all tokens
  bool spill = false;         // they go to a temporary file
  uint64_t layer_bytes = 0;   // largest block without its routed experts
  uint64_t expert_bytes = 0;  // largest routed expert
  uint64_t work_bytes = 0;    // intermediates of one batch, decoded tiles, keys and values of one sequence, experts beside the first
  uint64_t prefetch_bytes = 0;
  uint64_t weight_bytes = 0;        // stored bytes of the blocks; what a run reads at most, less embedding and output matrix
  int64_t batch_tokens = 0;         // that use a tile of dense weights together
  uint64_t expert_group_bytes = 0;  // stored bytes of routed experts held together
  uint64_t total_bytes() const noexcept { return (spill ? 0 : state_bytes) + layer_bytes + expert_bytes + work_bytes + prefetch_bytes; }
};

// What a pass over these sequences needs in memory, and how it uses what it may have. index: of the model that the parameters are of.
// Throws kUsage when the budget cannot hold one layer and one sequence; says what would.
EvalPlan plan_pass(const Hparams& hparams, const TensorIndex& index, const EvalOptions& options, std::span<const Sequence> sequences);

// Rows of routed experts that are multiplied together: bounds the buffers of the expert half of a layer.
inline constexpr int64_t kExpertRows = 4096;

// Consecutive tokens that pass through the dense half of a layer together: rows [first_row, first_row + n) of the states.
struct BatchPart {
  size_t sequence;
  int64_t first_token, n;
};
struct Batch {
  int64_t first_row = 0, n = 0;
  std::vector<BatchPart> parts;
};

// Consecutive sequences, long ones in parts of kQueryTile tokens, up to max_tokens together. Rows are in the order of the sequences.
std::vector<Batch> make_batches(std::span<const Sequence> sequences, int64_t max_tokens);

bool has_experts(const Hparams& hparams) noexcept;

}  // namespace quern
