// What a pass needs in memory, and how its tokens are cut into batches.

#include <algorithm>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/base/resources.h"
#include "runtime/pass/evaluator_pass.h"

namespace quern {
namespace {

constexpr int64_t kMaxBatch = 4 * kQueryTile;  // tokens; decoding a tile of weights then costs little beside using it

}  // namespace

bool Evaluator::has_experts() const noexcept {
  return std::ranges::any_of(hparams_.layers, [](const LayerParams& l) { return l.moe; });
}

namespace {

int64_t most_key_heads(const Hparams& h) {
  int64_t most = 0;
  for (const LayerParams& layer : h.layers) most = std::max(most, layer.n_kv_heads);
  return most;
}

}  // namespace

// Intermediates of a batch, in bytes. longest: tokens of the longest sequence.
uint64_t Evaluator::batch_bytes(int64_t batch, int64_t longest) const {
  const Hparams& h = hparams_;
  const int64_t q = h.n_heads * (2 * h.key_dim + 2 * h.value_dim), ffn = 4 * std::max(h.dense_width, h.shared_width);
  const int64_t cached = h.kv_rank > 0 ? 2 * (h.kv_rank + h.key_dim) : most_key_heads(h) * (h.key_dim + h.value_dim) * 2;
  const int64_t mixed_latents = options_.observer != nullptr ? h.n_heads * h.kv_rank * std::min(batch, kQueryTile) : 0;
  const int64_t expert_rows = has_experts() ? kExpertRows * (3 * h.hidden + 4 * h.expert_width) : 0;
  return 4 * static_cast<uint64_t>(batch * (3 * h.state_width() + 6 * h.hidden + q + ffn) + std::max(batch, longest) * cached +
                                   mixed_latents + expert_rows);
}

EvalPlan Evaluator::plan(std::span<const Sequence> sequences) const {
  const Hparams& h = hparams_;
  EvalPlan plan;
  int64_t longest = 0;
  for (const Sequence& sequence : sequences) {
    plan.n_tokens += static_cast<int64_t>(sequence.tokens.size());
    longest = std::max(longest, static_cast<int64_t>(sequence.tokens.size()));
  }
  const bool moe = has_experts();
  const int64_t per_token = 4 * (h.state_width() + h.hidden + (moe ? 2 * h.hidden + 2 * h.routing.n_used : 0)) +
                            (h.n_streams > 1 ? 8 * h.n_streams * (h.n_streams + 2) + 96 : 0);
  plan.state_bytes = static_cast<uint64_t>(plan.n_tokens * per_token);
  int64_t widest = 0;
  for (int64_t layer = 0; layer < static_cast<int64_t>(h.layers.size()); ++layer) {
    uint64_t dense = 0;
    const std::string prefix = block_name(layer, "");
    for (const LogicalTensor& tensor : source_.tensors()) {
      if (!tensor.name.starts_with(prefix)) continue;
      plan.weight_bytes += tensor.source_bytes;
      widest = std::max(widest, tensor.shape.row_length());
      if (is_expert_stack(tensor.name)) continue;
      const bool as_floats = tensor.name.ends_with("_b.weight") && h.layers[static_cast<size_t>(layer)].attention == AttentionKind::kLatent;
      dense += as_floats ? 4 * static_cast<uint64_t>(tensor.shape.n_elements()) : tensor.source_bytes;
    }
    plan.layer_bytes = std::max(plan.layer_bytes, dense);
    if (!h.layers[static_cast<size_t>(layer)].moe) continue;
    uint64_t expert = 0;
    for (const LayerTensor& stack : expert_stacks(h)) {
      const LogicalTensor* tensor = index_.find(block_name(layer, stack.name));
      if (tensor != nullptr) expert += tensor->source_bytes / static_cast<uint64_t>(stack.shape[0]);
    }
    plan.expert_bytes = std::max(plan.expert_bytes, expert);
  }
  // A tile of weights as floats and packed; scores and packed scores of a panel of queries; keys and values of a latent head, packed too.
  const int64_t per_thread =
      4 * (2 * tile_weights(widest) + longest * (2 * kPanelWidth + (h.kv_rank > 0 ? 2 * (h.key_dim + h.value_dim) : 0)));
  const uint64_t outside_batch = static_cast<uint64_t>(per_thread * thread_limit()) + (uint64_t{64} << 20);
  plan.batch_tokens = std::min(longest, kQueryTile);
  plan.work_bytes = batch_bytes(plan.batch_tokens, longest) + outside_batch;
  plan.expert_group_bytes = plan.expert_bytes;
  uint64_t fixed = plan.layer_bytes + plan.expert_bytes + plan.work_bytes;
  constexpr uint64_t kMinPrefetch = uint64_t{16} << 20, kMaxPrefetch = uint64_t{1} << 30;
  if (fixed + kMinPrefetch > options_.memory_bytes) {
    throw Error(ErrorKind::kUsage, "a memory budget of " + format_size(options_.memory_bytes) +
                                       " is too small for this model and context: " + format_size(fixed + kMinPrefetch) +
                                       " are needed (one layer, one expert, one sequence)");
  }
  plan.spill = fixed + kMinPrefetch + plan.state_bytes > options_.memory_bytes;
  // Larger batches and groups of experts from half of what is left; the other half reads ahead.
  const auto left = [&] { return options_.memory_bytes - fixed - kMinPrefetch - (plan.spill ? 0 : plan.state_bytes); };
  const uint64_t extra = left() / 2;
  constexpr uint64_t kExpertsTogether = 8;
  const uint64_t group = std::min(extra / 2, (kExpertsTogether - 1) * plan.expert_bytes);
  plan.expert_group_bytes += group;
  plan.work_bytes += group;
  for (int64_t batch = kMaxBatch; batch > plan.batch_tokens; batch -= kQueryTile) {
    const uint64_t more = batch_bytes(batch, longest) - batch_bytes(plan.batch_tokens, longest);
    if (more > extra - group) continue;
    plan.batch_tokens = batch;
    plan.work_bytes += more;
    break;
  }
  fixed = plan.layer_bytes + plan.expert_bytes + plan.work_bytes;
  plan.prefetch_bytes = std::min({left() + kMinPrefetch, kMaxPrefetch, std::max(kMinPrefetch, 2 * (plan.layer_bytes + plan.expert_bytes))});
  return plan;
}

// Consecutive sequences, long ones in parts of kQueryTile tokens, up to max_tokens together.
std::vector<Evaluator::Batch> Evaluator::make_batches(int64_t max_tokens) const {
  std::vector<Batch> batches;
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const auto length = static_cast<int64_t>(sequences_[s].tokens.size());
    for (int64_t t = 0; t < length; t += kQueryTile) {
      const int64_t n = std::min(kQueryTile, length - t);
      if (batches.empty() || batches.back().n + n > max_tokens) batches.push_back({first_rows_[s] + t, 0, {}});
      batches.back().n += n;
      batches.back().parts.push_back({s, t, n});
    }
  }
  return batches;
}

}  // namespace quern
