// The expert half of a MoE layer: routing, and the routed experts over all tokens that chose them.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "runtime/blocks/routing.h"
#include "runtime/pass/evaluator_pass.h"

namespace quern {

void Evaluator::select_experts(const LayerContext& context, const Batch& batch, std::span<const Piece> pieces, const Rows& x) {
  const RoutingParams& routing = hparams_.routing;
  const auto n_experts = static_cast<size_t>(routing.n_experts), n_used = static_cast<size_t>(routing.n_used);
  std::vector<float> logits(static_cast<size_t>(batch.n) * n_experts);
  router_logits(context, x, pack_input(compute_, x, context.work.packed_input), pieces, logits.data());
  std::vector<int32_t> tokens;
  for (const BatchPart& part : batch.parts) {
    const auto begin = sequences_[part.sequence].tokens.begin() + part.first_token;
    tokens.insert(tokens.end(), begin, begin + part.n);
  }
  const auto route_token = [&](size_t t) {
    const std::span<const float> of_token(logits.data() + t * n_experts, n_experts);
    const size_t slot = (static_cast<size_t>(batch.first_row) + t) * n_used;
    const Selection selection{pass_->experts.data() + slot, pass_->weights.data() + slot};
    if (!std::ranges::all_of(of_token, [](float v) { return std::isfinite(v); })) {
      throw Error(ErrorKind::kFormat,
                  "router logits of token " + std::to_string(batch.first_row + static_cast<int64_t>(t)) + " are not finite")
          .tensor(context.weights.matrix("ffn_gate_inp.weight").info->name);
    }
    if (!context.layer.hash_routing) {
      route(routing, of_token, context.weights.value("exp_probs_b.bias"), selection);
      return;
    }
    const std::vector<int32_t>& table = context.weights.integers.find("ffn_gate_tid2eid.weight")->second;
    const size_t row = static_cast<size_t>(tokens[t]) * n_used;
    if (row + n_used > table.size())
      throw Error(ErrorKind::kFormat, "token " + std::to_string(tokens[t]) + " has no row in the expert table");
    const std::span<const int32_t> experts(table.data() + row, n_used);
    for (const int32_t e : experts) {
      if (e < 0 || e >= routing.n_experts)
        throw Error(ErrorKind::kFormat, "expert " + std::to_string(e) + " does not exist").tensor("ffn_gate_tid2eid.weight");
    }
    route_to(routing, of_token, experts, selection);
  };
  parallel_for(batch.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) route_token(static_cast<size_t>(t));
  });
}

// An expert in memory and the slots (positions in Pass::experts) that chose it.
struct Evaluator::LoadedExpert {
  int64_t number = 0;
  std::vector<StoredMatrix> matrices;  // gate, up, down
  std::span<const int64_t> slots;
};

// Experts are taken in groups whose stored bytes fit the plan, so that small products share the threads.
void Evaluator::run_experts(const LayerContext& context, int64_t layer, bool requested) {
  std::vector<std::vector<int64_t>> slots(static_cast<size_t>(hparams_.routing.n_experts));
  for (size_t i = 0; i < pass_->experts.size(); ++i) slots[static_cast<size_t>(pass_->experts[i])].push_back(static_cast<int64_t>(i));
  for (size_t e = 0; !requested && e < slots.size(); ++e) {
    if (!slots[e].empty()) prefetcher_->request(expert_tiles(layer, static_cast<int64_t>(e)));
  }
  std::vector<LoadedExpert> group;
  uint64_t bytes = 0;
  int64_t n_rows = 0;
  const auto flush = [&] {
    throw_if_interrupted();
    apply_experts(context, group);
    group.clear();
    bytes = 0;
    n_rows = 0;
  };
  for (size_t e = 0; e < slots.size(); ++e) {
    if (!requested && slots[e].empty()) continue;
    LoadedExpert expert{static_cast<int64_t>(e), {}, slots[e]};
    uint64_t expert_bytes = 0;
    for (const LayerTensor& stack : expert_stacks(hparams_)) {
      const LogicalTensor& tensor = *index_.find(block_name(layer, stack.name));
      expert_bytes += tensor.source_bytes / static_cast<uint64_t>(stack.shape[0]);
    }
    if (!group.empty() && (bytes + expert_bytes > expert_group_bytes_ || n_rows >= kExpertRows)) flush();
    for (const LayerTensor& stack : expert_stacks(hparams_)) {
      expert.matrices.push_back(take_matrix(*index_.find(block_name(layer, stack.name)), expert.number * stack.shape[1], stack.shape[1]));
    }
    if (slots[e].empty()) continue;
    bytes += expert_bytes;
    n_rows += static_cast<int64_t>(slots[e].size());
    group.push_back(std::move(expert));
  }
  flush();
}

void Evaluator::apply_experts(const LayerContext& context, std::span<const LoadedExpert> group) {
  std::vector<ExpertRows> window;
  int64_t n = 0;
  for (const LoadedExpert& expert : group) {
    for (size_t first = 0; first < expert.slots.size(); first += static_cast<size_t>(kExpertPiece)) {
      const auto slots = expert.slots.subspan(first, std::min(expert.slots.size() - first, static_cast<size_t>(kExpertPiece)));
      if (n + static_cast<int64_t>(slots.size()) > kExpertRows) {
        multiply_experts(context, window);
        window.clear();
        n = 0;
      }
      window.push_back({&expert, slots});
      n += static_cast<int64_t>(slots.size());
    }
  }
  if (!window.empty()) multiply_experts(context, window);
}

void Evaluator::multiply_experts(const LayerContext& context, std::span<const ExpertRows> window) {
  const int64_t hidden = hparams_.hidden, n_used = hparams_.routing.n_used;
  std::vector<int64_t> slots;
  std::vector<float> shares;
  std::vector<Piece> pieces;
  std::vector<FfnWeights> weights;
  weights.reserve(window.size());
  pieces.reserve(window.size());
  std::vector<FfnRows> networks;
  const auto bias = [&](const char* name, int64_t expert, int64_t width) {
    const std::span<const float> all = context.weights.value(name);
    return all.empty() ? all : all.subspan(static_cast<size_t>(expert * width), static_cast<size_t>(width));
  };
  for (const auto& [expert, chosen] : window) {
    const auto first = static_cast<int64_t>(slots.size()), n = static_cast<int64_t>(chosen.size());
    slots.insert(slots.end(), chosen.begin(), chosen.end());
    pieces.push_back({first, n});
    const int64_t e = expert->number;
    if (!networks.empty() && networks.back().weights->expert == e) {
      networks.back().n += n;
      networks.back().pieces = std::span(networks.back().pieces.data(), networks.back().pieces.size() + 1);
      continue;
    }
    weights.push_back({&expert->matrices[0], &expert->matrices[1], &expert->matrices[2],
                       bias("ffn_gate_exps.bias", e, hparams_.expert_width), bias("ffn_up_exps.bias", e, hparams_.expert_width),
                       bias("ffn_down_exps.bias", e, hidden), e});
    networks.push_back({&weights.back(), first, n, std::span(&pieces.back(), 1), {}});
  }
  for (const int64_t slot : slots) shares.push_back(pass_->weights[static_cast<size_t>(slot)]);
  for (FfnRows& rows : networks) rows.shares = std::span(shares).subspan(static_cast<size_t>(rows.first), static_cast<size_t>(rows.n));

  const auto n_rows = static_cast<int64_t>(slots.size());
  float* y = pass_->y.resize(n_rows * hidden);
  float* out = pass_->out.resize(n_rows * hidden);
  parallel_for(n_rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) pass_->normal.read(slots[static_cast<size_t>(i)] / n_used, 1, y + i * hidden);
  });
  ffn_block(compute_, context.work, networks, context.layer.activation, context.layer.clamp_experts, {y, n_rows, hidden, hidden}, out);
  add_expert_outputs(slots, out);
}

// Per token in the order of the rows, which is that of the experts.
void Evaluator::add_expert_outputs(std::span<const int64_t> slots, const float* out) {
  const int64_t hidden = hparams_.hidden, n_used = hparams_.routing.n_used;
  std::vector<size_t> order(slots.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return slots[i] / n_used; });
  std::vector<size_t> begins;  // of each token in `order`
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || slots[order[i]] / n_used != slots[order[i - 1]] / n_used) begins.push_back(i);
  }
  begins.push_back(order.size());
  parallel_for(static_cast<int64_t>(begins.size()) - 1, 16, [&](int64_t first, int64_t end) {
    std::vector<float> sum(static_cast<size_t>(hidden));
    for (auto token = static_cast<size_t>(first); token < static_cast<size_t>(end); ++token) {
      const int64_t row = slots[order[begins[token]]] / n_used;
      pass_->sum.read(row, 1, sum.data());
      for (size_t i = begins[token]; i < begins[token + 1]; ++i) {
        const float weight = pass_->weights[static_cast<size_t>(slots[order[i]])];
        const float* of_expert = out + static_cast<int64_t>(order[i]) * hidden;
        for (int64_t k = 0; k < hidden; ++k) sum[static_cast<size_t>(k)] += weight * of_expert[k];
      }
      pass_->sum.write(row, 1, sum.data());
    }
  });
}

}  // namespace quern
