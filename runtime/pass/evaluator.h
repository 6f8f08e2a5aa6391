#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "formats/base/progress.h"
#include "runtime/pass/experts.h"
#include "runtime/pass/layer_reader.h"
#include "runtime/pass/pass_plan.h"
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

class Evaluator {
 public:
  // Checks the tensors of the model; see LayerReader.
  Evaluator(const ModelSource& source, const EvalOptions& options);

  const Hparams& hparams() const noexcept { return hparams_; }
  const TensorIndex& index() const noexcept { return index_; }
  const Compute& compute() const noexcept { return compute_; }

  EvalPlan plan(std::span<const Sequence> sequences) const { return plan_pass(hparams_, index_, options_, sequences); }

  // A whole pass of the main model, from the tokens to final_states().
  void forward(std::vector<Sequence> sequences, Progress& progress, const RoutingObserver& observer = {});

  // The same in steps. Starts a pass: allocates the states. Sequences continue their caches when keep_caches is set and their number is
  // unchanged.
  void start(std::vector<Sequence> sequences);
  void embed();                                                      // states = rows of token_embd
  void set_states(int64_t first_row, int64_t n, const float* rows);  // or states from elsewhere (MTP); [n, state_width]
  void run_layers(int64_t first, int64_t end, Progress& progress, const RoutingObserver& observer = {});
  // Collapses streams (hyper-connections) and normalises: [n, hidden] of what the output matrix multiplies. norm: tensor name.
  void finish(std::string_view norm = "output_norm.weight");
  void drop_states() noexcept { states_ = TokenStore(); }  // when only the final states are needed from here on

  int64_t n_rows() const noexcept { return n_rows_; }
  std::span<const int64_t> first_rows() const noexcept { return first_rows_; }  // of each sequence
  const TokenStore& states() const noexcept { return states_; }                 // [n_rows, state_width]
  const TokenStore& final_states() const noexcept { return final_; }            // [n_rows, hidden], after finish()

 private:
  using Caches = std::vector<std::unique_ptr<LayerCache>>;

  void run_layer(int64_t layer, bool last, const RoutingObserver& observer);
  void run_batch(const LayerContext& context, const Block& block, const Batch& batch);
  void run_mixer(const LayerContext& context, const Block& block, const Batch& batch, std::span<const Piece> pieces, float* states);
  void run_feed_forward(const LayerContext& context, const Block& block, const Batch& batch, std::span<const Piece> pieces, float* states);
  void add_expert_outputs(const LayerContext& context);
  std::vector<Piece> pieces_of(const Batch& batch) const;
  LayerCache& cache_of(const LayerContext& context, const Mixer& mixer, size_t sequence);
  void close_caches(const LayerContext& context, const Batch& batch);
  float* batch_states(const Batch& batch);
  void put_back(const Batch& batch, const float* states);
  void check_finite(const Batch& batch, const float* states, const std::string& tensor) const;

  const ModelSource& source_;
  EvalOptions options_;
  Hparams hparams_;
  TensorIndex index_;
  Compute compute_;
  LayerReader reader_;
  std::vector<std::vector<double>> frequencies_;  // per rope
  std::vector<Sequence> sequences_;
  std::vector<int64_t> first_rows_;
  int64_t n_rows_ = 0;
  bool spill_ = false;
  std::vector<Batch> batches_;
  Workspace work_;
  Experts experts_;
  TokenStore states_;
  TokenStore final_;
  std::vector<Caches> caches_;                                 // [layer][sequence], when kept
  std::map<size_t, std::unique_ptr<LayerCache>> open_caches_;  // of sequences that begin in this batch or began in the one before
  std::map<AttentionKind, Caches> idle_caches_;                // emptied ones, for their memory
};

}  // namespace quern
