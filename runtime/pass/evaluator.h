#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "formats/base/progress.h"
#include "runtime/blocks/hyper_connection.h"
#include "runtime/blocks/layer.h"
#include "runtime/pass/token_store.h"

namespace quern {

// The forward pass, layer by layer over all tokens at once. The states of all sequences stay in memory (or in a spill file); the
// tensors of a layer are read once, used for every sequence and dropped; tokens of a MoE layer are grouped by expert, so that every
// expert is one product over all tokens that chose it. While one part is computed the next is read (Prefetcher).
//
// Order of operations, which fixes the bits of every result whatever the number of threads, the memory and the sequences beside it:
// products as in product.h; norms, routing, softmax sums and hyper-connections in double, rounded to float when stored;
// the output of a MoE block is the shared expert's, then the routed experts' added in ascending expert order in float; the residual
// is added last.

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

// The experts of all tokens in a MoE layer and their weights, [n_rows, n_used], rows in the order of the sequences.
struct Routing {
  std::span<int32_t> experts;
  std::span<float> weights;
  bool run_experts = true;  // false: leave the layer here; its states are not to be used
};

// Told about every MoE layer when its experts are chosen and before they run; may put others in their place.
using RoutingObserver = std::function<void(int64_t layer, Routing& routing)>;

class Evaluator {
 public:
  // Checks that every block of the model is complete, of the expected shapes and known in full: a block tensor that no rule of the
  // runtime uses is an error, because ignoring it would give wrong numbers silently. All problems are reported together.
  Evaluator(const ModelSource& source, const EvalOptions& options);
  ~Evaluator();

  const Hparams& hparams() const noexcept { return hparams_; }
  const TensorIndex& index() const noexcept { return index_; }
  const Compute& compute() const noexcept { return compute_; }

  // Throws kUsage when the budget cannot hold one layer and one sequence; says what would.
  EvalPlan plan(std::span<const Sequence> sequences) const;

  // Starts a pass: allocates the states. Sequences continue their caches when keep_caches is set and their number is unchanged.
  void start(std::vector<Sequence> sequences);
  void embed();                                                      // states = rows of token_embd
  void set_states(int64_t first_row, int64_t n, const float* rows);  // or states from elsewhere (MTP); [n, state_width]
  void run_layers(int64_t first, int64_t end, Progress& progress, const RoutingObserver& observer = {});
  // Collapses streams (hyper-connections) and normalises: [n, hidden] of what the output matrix multiplies. norm: tensor name.
  void finish(std::string_view norm);
  void drop_states() noexcept { states_ = TokenStore(); }  // when only the final states are needed from here on

  int64_t n_rows() const noexcept { return n_rows_; }
  std::span<const int64_t> first_rows() const noexcept { return first_rows_; }  // of each sequence
  const TokenStore& states() const noexcept { return states_; }                 // [n_rows, state_width]
  const TokenStore& final_states() const noexcept { return final_; }            // [n_rows, hidden], after finish()

 private:
  struct Pass;  // buffers

  void check_tensors() const;
  void check_layer(int64_t layer, std::vector<std::string>& problems) const;
  std::vector<LayerTensor> stored_tensors(int64_t layer) const;
  std::vector<RowTile> dense_tiles(int64_t layer) const;
  std::vector<RowTile> expert_tiles(int64_t layer, int64_t expert) const;
  LayerWeights take_layer(int64_t layer);
  StoredMatrix take_matrix(const LogicalTensor& tensor, int64_t first_row, int64_t n_rows);

  // Consecutive tokens that pass through the dense half of a layer together: rows [first_row, first_row + n) of the states.
  struct BatchPart {
    size_t sequence;
    int64_t first_token, n;
  };
  struct Batch {
    int64_t first_row = 0, n = 0;
    std::vector<BatchPart> parts;
  };
  struct LoadedExpert;
  struct ExpertRows {
    const LoadedExpert* expert;
    std::span<const int64_t> slots;
  };

  std::vector<Batch> make_batches(int64_t max_tokens) const;
  uint64_t batch_bytes(int64_t batch, int64_t longest) const;
  bool has_experts() const noexcept;
  void run_layer(int64_t layer, bool last, const RoutingObserver& observer);
  void run_batch(const LayerContext& context, const Batch& batch);
  void attention_batch(const LayerContext& context, const Batch& batch, std::span<const Piece> pieces, float* x);
  void feed_forward_batch(const LayerContext& context, const Batch& batch, std::span<const Piece> pieces, float* x);
  LayerCache& cache_of(int64_t layer, size_t sequence);
  void close_caches(const Batch& batch);
  void select_experts(const LayerContext& context, const Batch& batch, std::span<const Piece> pieces, const Rows& x);
  void run_experts(const LayerContext& context, int64_t layer, bool requested);
  void apply_experts(const LayerContext& context, std::span<const LoadedExpert> group);
  void multiply_experts(const LayerContext& context, std::span<const ExpertRows> window);
  void add_expert_outputs(std::span<const int64_t> slots, const float* out);
  void add_outputs(const LayerContext& context);
  std::vector<HyperMix> hyper_mixes(const LayerContext& context, const char* prefix, std::span<const Piece> pieces, int64_t n,
                                    const float* states) const;
  void check_finite(int64_t first_row, int64_t n, const float* rows, const std::string& tensor) const;
  bool all_experts_expected() const noexcept;
  uint64_t layer_bytes(int64_t layer) const;

  const ModelSource& source_;
  EvalOptions options_;
  Hparams hparams_;
  TensorIndex index_;
  Compute compute_;
  std::vector<std::vector<double>> frequencies_;  // per rope
  std::vector<Sequence> sequences_;
  std::vector<int64_t> first_rows_;
  int64_t n_rows_ = 0;
  bool spill_ = false;
  uint64_t expert_group_bytes_ = 0;
  std::vector<Batch> batches_;
  std::unique_ptr<Pass> pass_;
  TokenStore states_;
  TokenStore final_;
  std::vector<std::vector<LayerCache>> caches_;  // [layer][sequence], when kept
  std::unique_ptr<Prefetcher> prefetcher_;
  Progress* progress_ = nullptr;  // while layers run; counts stored bytes
  uint64_t layer_progress_ = 0;
};

}  // namespace quern
