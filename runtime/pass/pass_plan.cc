#include "runtime/pass/pass_plan.h"

#include <algorithm>

#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "runtime/blocks/feed_forward.h"
#include "runtime/blocks/mixer_kinds.h"

// A pass needs at least one layer, one expert, the intermediates of one tile of tokens, and the states of all tokens, which may go to a
// file instead. What the budget leaves beyond that buys speed: half of it larger batches, because decoding a tile of weights then costs
// little beside using it, and groups of experts that share the threads; the other half reads ahead.

namespace quern {
namespace {

constexpr int64_t kMaxBatch = 4 * kQueryTile;  // tokens

// Intermediates of a batch, in bytes.
uint64_t batch_bytes(const Hparams& h, const MixerLoad& load) {
  int64_t mixer = 0;
  for (const LayerParams& layer : h.layers) mixer = std::max(mixer, mixer_kind(layer.attention).batch_floats(h, layer, load));
  const int64_t ffn = 4 * std::max(h.dense_width, h.shared_width);
  const int64_t expert_rows = has_experts(h) ? kExpertRows * (3 * h.hidden + 4 * h.expert_width) : 0;
  return 4 * static_cast<uint64_t>(load.batch * (3 * h.state_width() + 6 * h.hidden + ffn) + mixer + expert_rows);
}

// What threads have of their own: a tile of weights as floats and packed, and what a mixer needs.
uint64_t thread_bytes(const Hparams& h, const MixerLoad& load, int64_t widest_row) {
  int64_t mixer = 0;
  for (const LayerParams& layer : h.layers) mixer = std::max(mixer, mixer_kind(layer.attention).thread_floats(h, layer, load));
  return static_cast<uint64_t>(4 * (2 * tile_weights(widest_row) + mixer) * thread_limit());
}

// States, and what a MoE layer hands from its dense half to its experts.
int64_t token_bytes(const Hparams& h) {
  const int64_t moe = has_experts(h) ? 2 * h.hidden + 2 * h.routing.n_used : 0;
  return 4 * (h.state_width() + h.hidden + moe) + (h.n_streams > 1 ? 8 * h.n_streams * (h.n_streams + 2) + 96 : 0);
}

// Adds what block number `layer` weighs to the plan; returns its longest row.
int64_t add_block(const Hparams& h, const TensorIndex& index, int64_t number, EvalPlan& plan) {
  const LayerParams& layer = h.layers[static_cast<size_t>(number)];
  const std::string_view float_suffix = mixer_kind(layer.attention).float_suffix;
  const std::string prefix = block_name(number, "");
  int64_t widest = 0;
  uint64_t dense = 0;
  for (const LogicalTensor& tensor : index.source().tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    plan.weight_bytes += tensor.source_bytes;
    widest = std::max(widest, tensor.shape.row_length());
    if (tensor.name.ends_with("_exps.weight")) continue;
    const bool as_floats = !float_suffix.empty() && tensor.name.ends_with(float_suffix);
    dense += as_floats ? 4 * static_cast<uint64_t>(tensor.shape.n_elements()) : tensor.source_bytes;
  }
  plan.layer_bytes = std::max(plan.layer_bytes, dense);
  if (!layer.moe) return widest;
  uint64_t expert = 0;
  for (const BlockWeight& stack : expert_stacks(h)) {
    const LogicalTensor* tensor = index.find(block_name(number, stack.name));
    if (tensor != nullptr) expert += tensor->source_bytes / static_cast<uint64_t>(stack.shape[0]);
  }
  plan.expert_bytes = std::max(plan.expert_bytes, expert);
  return widest;
}

}  // namespace

bool has_experts(const Hparams& h) noexcept {
  return std::ranges::any_of(h.layers, [](const LayerParams& layer) { return layer.moe; });
}

EvalPlan plan_pass(const Hparams& h, const TensorIndex& index, const EvalOptions& options, std::span<const Sequence> sequences) {
  EvalPlan plan;
  MixerLoad load{.observed = options.observer != nullptr};
  for (const Sequence& sequence : sequences) {
    plan.n_tokens += static_cast<int64_t>(sequence.tokens.size());
    load.longest = std::max(load.longest, static_cast<int64_t>(sequence.tokens.size()));
  }
  plan.state_bytes = static_cast<uint64_t>(plan.n_tokens * token_bytes(h));
  int64_t widest = 0;
  for (int64_t layer = 0; layer < static_cast<int64_t>(h.layers.size()); ++layer)
    widest = std::max(widest, add_block(h, index, layer, plan));
  plan.batch_tokens = load.batch = std::min(load.longest, kQueryTile);
  const uint64_t least_batch = batch_bytes(h, load);
  plan.work_bytes = least_batch + thread_bytes(h, load, widest) + (uint64_t{64} << 20);
  plan.expert_group_bytes = plan.expert_bytes;
  uint64_t fixed = plan.layer_bytes + plan.expert_bytes + plan.work_bytes;
  constexpr uint64_t kMinPrefetch = uint64_t{16} << 20, kMaxPrefetch = uint64_t{1} << 30;
  if (fixed + kMinPrefetch > options.memory_bytes) {
    throw Error(ErrorKind::kUsage, "a memory budget of " + format_size(options.memory_bytes) +
                                       " is too small for this model and context: " + format_size(fixed + kMinPrefetch) +
                                       " are needed (one layer, one expert, one sequence)");
  }
  plan.spill = fixed + kMinPrefetch + plan.state_bytes > options.memory_bytes;
  const auto left = [&] { return options.memory_bytes - fixed - kMinPrefetch - (plan.spill ? 0 : plan.state_bytes); };
  const uint64_t extra = left() / 2;
  constexpr uint64_t kExpertsTogether = 8;
  const uint64_t group = std::min(extra / 2, (kExpertsTogether - 1) * plan.expert_bytes);
  plan.expert_group_bytes += group;
  plan.work_bytes += group;
  for (load.batch = kMaxBatch; load.batch > plan.batch_tokens; load.batch -= kQueryTile) {
    const uint64_t more = batch_bytes(h, load) - least_batch;
    if (more > extra - group) continue;
    plan.batch_tokens = load.batch;
    plan.work_bytes += more;
    break;
  }
  fixed = plan.layer_bytes + plan.expert_bytes + plan.work_bytes;
  plan.prefetch_bytes = std::min({left() + kMinPrefetch, kMaxPrefetch, std::max(kMinPrefetch, 2 * (plan.layer_bytes + plan.expert_bytes))});
  return plan;
}

std::vector<Batch> make_batches(std::span<const Sequence> sequences, int64_t max_tokens) {
  std::vector<Batch> batches;
  int64_t row = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto length = static_cast<int64_t>(sequences[s].tokens.size());
    for (int64_t t = 0; t < length; t += kQueryTile) {
      const int64_t n = std::min(kQueryTile, length - t);
      if (batches.empty() || batches.back().n + n > max_tokens) batches.push_back({row + t, 0, {}});
      batches.back().n += n;
      batches.back().parts.push_back({s, t, n});
    }
    row += length;
  }
  return batches;
}

}  // namespace quern
