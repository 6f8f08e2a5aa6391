#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/pass/layer_reader.h"
#include "runtime/pass/token_store.h"

namespace quern {

// The experts of all tokens in a MoE layer and their weights, [n_rows, n_used], rows in the order of the sequences.
struct Routing {
  std::span<int32_t> experts;
  std::span<float> weights;
  bool run_experts = true;  // false: leave the layer here; its states are not to be used
};

// Told about every MoE layer when its experts are chosen and before they run; may put others in their place.
using RoutingObserver = std::function<void(int64_t layer, Routing& routing)>;

// The expert half of a MoE layer over all tokens of a pass, and what the dense half hands to it batch by batch.
class Experts {
 public:
  Experts() = default;
  // group_bytes: stored bytes of experts that may be held together.
  Experts(const Hparams& hparams, int64_t n_rows, uint64_t group_bytes, bool in_file);

  // Chooses the experts of a batch. x: [n, hidden], its normalised input; tokens: their ids, for hash routing.
  void select(const LayerContext& context, const MoeWeights& weights, int64_t first_row, std::span<const int32_t> tokens, const Rows& x,
              std::span<const Piece> pieces);
  // Keeps a batch until its experts run. input and sum: [n, hidden], the normalised input and what other networks give for it.
  void keep(int64_t first_row, int64_t n, const float* input, const float* sum, std::vector<HyperMix> mixes);
  Routing routing() noexcept { return {experts_, weights_}; }

  // Whether a token nearly certainly chooses every expert, so that all can be requested before they are chosen.
  bool all_expected() const noexcept;
  // Runs the chosen experts over all tokens and adds what they give to the sums. requested: all experts are requested already, ascending.
  void run(const LayerContext& context, const MoeWeights& weights, LayerReader& reader, bool requested);

  void read_sum(int64_t first_row, int64_t n, float* out) const { sum_.read(first_row, n, out); }  // [n, hidden]
  std::span<const HyperMix> mixes(int64_t first_row, int64_t n) const;                             // of the sublayer; empty with one stream

 private:
  struct Loaded;
  struct ExpertRows {
    const Loaded* expert;
    std::span<const int64_t> slots;
  };

  void apply(const LayerContext& context, const MoeWeights& weights, std::span<const Loaded> group);
  void multiply(const LayerContext& context, const MoeWeights& weights, std::span<const ExpertRows> window);
  void add_outputs(std::span<const int64_t> slots, const float* out);

  int64_t hidden_ = 0, n_used_ = 0, n_experts_ = 0;
  uint64_t group_bytes_ = 0;
  TokenStore normal_;             // input of all tokens [n_rows, hidden]
  TokenStore sum_;                // output of all tokens [n_rows, hidden]
  std::vector<HyperMix> mixes_;   // of all tokens
  std::vector<int32_t> experts_;  // [n_rows, n_used]; a position in it is a slot
  std::vector<float> weights_;    // [n_rows, n_used]
};

}  // namespace quern
