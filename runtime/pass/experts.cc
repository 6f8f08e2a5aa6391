#include "runtime/pass/experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "runtime/blocks/routing.h"
#include "runtime/pass/pass_plan.h"

// Tokens are grouped by expert, so that every expert is read once and is one product over all tokens that chose it. Experts run in
// ascending order and a token's outputs are added in that order, which keeps sums the same bits whatever the groups, the batches and the
// number of threads.

namespace quern {
namespace {

// Rows of one expert that an observer is told about in one call.
constexpr int64_t kExpertPiece = 1024;

}  // namespace

Experts::Experts(const Hparams& h, int64_t n_rows, uint64_t group_bytes, bool in_file)
    : hidden_(h.hidden),
      n_used_(h.routing.n_used),
      n_experts_(h.routing.n_experts),
      group_bytes_(group_bytes),
      normal_(n_rows, h.hidden, in_file),
      sum_(n_rows, h.hidden, in_file),
      mixes_(static_cast<size_t>(h.n_streams > 1 ? n_rows : 0)),
      experts_(static_cast<size_t>(n_rows * h.routing.n_used)),
      weights_(experts_.size()) {}

void Experts::select(const LayerContext& context, const MoeWeights& weights, int64_t first_row, std::span<const int32_t> token_ids,
                     const Rows& x, std::span<const Piece> pieces) {
  const RoutingParams& routing = context.hparams.routing;
  const auto n_experts = static_cast<size_t>(routing.n_experts), n_used = static_cast<size_t>(routing.n_used);
  std::vector<float> logits(static_cast<size_t>(x.n_rows) * n_experts);
  router_logits(context, weights, x, pieces, logits.data());
  const auto route_token = [&](size_t t) {
    const std::span<const float> of_token(logits.data() + t * n_experts, n_experts);
    const size_t slot = (static_cast<size_t>(first_row) + t) * n_used;
    const Selection selection{experts_.data() + slot, weights_.data() + slot};
    if (!std::ranges::all_of(of_token, [](float v) { return std::isfinite(v); })) {
      throw Error(ErrorKind::kFormat, "router logits of token " + std::to_string(first_row + static_cast<int64_t>(t)) + " are not finite")
          .tensor(weights.router.info->name);
    }
    if (!context.layer.hash_routing) {
      route(routing, of_token, weights.choice_bias, selection);
      return;
    }
    const std::vector<int32_t>& table = weights.token_table.values;
    const size_t row = static_cast<size_t>(token_ids[t]) * n_used;
    if (row + n_used > table.size())
      throw Error(ErrorKind::kFormat, "token " + std::to_string(token_ids[t]) + " has no row in the expert table");
    const std::span<const int32_t> experts(table.data() + row, n_used);
    for (const int32_t e : experts) {
      if (e < 0 || e >= routing.n_experts)
        throw Error(ErrorKind::kFormat, "expert " + std::to_string(e) + " does not exist").tensor("ffn_gate_tid2eid.weight");
    }
    route_to(routing, of_token, experts, selection);
  };
  parallel_for(x.n_rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) route_token(static_cast<size_t>(t));
  });
}

void Experts::keep(int64_t first_row, int64_t n, const float* input, const float* sum, std::vector<HyperMix> mixes) {
  normal_.write(first_row, n, input);
  sum_.write(first_row, n, sum);
  std::ranges::move(mixes, mixes_.begin() + static_cast<ptrdiff_t>(mixes.empty() ? 0 : first_row));
}

std::span<const HyperMix> Experts::mixes(int64_t first_row, int64_t n) const {
  if (mixes_.empty()) return {};
  return std::span(mixes_).subspan(static_cast<size_t>(first_row), static_cast<size_t>(n));
}

bool Experts::all_expected() const noexcept { return static_cast<int64_t>(experts_.size()) >= 16 * n_experts_; }

// An expert in memory and the slots (positions in experts_) that chose it.
struct Experts::Loaded {
  int64_t number = 0;
  std::vector<StoredMatrix> matrices;  // gate, up, down
  std::span<const int64_t> slots;
};

// Experts are taken in groups whose stored bytes fit the plan, so that small products share the threads.
void Experts::run(const LayerContext& context, const MoeWeights& weights, LayerReader& reader, bool requested) {
  std::vector<std::vector<int64_t>> slots(static_cast<size_t>(n_experts_));
  for (size_t i = 0; i < experts_.size(); ++i) slots[static_cast<size_t>(experts_[i])].push_back(static_cast<int64_t>(i));
  for (size_t e = 0; !requested && e < slots.size(); ++e) {
    if (!slots[e].empty()) reader.request_expert(context.number, static_cast<int64_t>(e));
  }
  const uint64_t expert_bytes = reader.expert_bytes(context.number);
  std::vector<Loaded> group;
  uint64_t bytes = 0;
  int64_t n_rows = 0;
  const auto flush = [&] {
    throw_if_interrupted();
    apply(context, weights, group);
    group.clear();
    bytes = 0;
    n_rows = 0;
  };
  for (size_t e = 0; e < slots.size(); ++e) {
    if (!requested && slots[e].empty()) continue;
    Loaded expert{static_cast<int64_t>(e), {}, slots[e]};
    if (!group.empty() && (bytes + expert_bytes > group_bytes_ || n_rows >= kExpertRows)) flush();
    expert.matrices = reader.take_expert(context.number, expert.number);
    if (slots[e].empty()) continue;
    bytes += expert_bytes;
    n_rows += static_cast<int64_t>(slots[e].size());
    group.push_back(std::move(expert));
  }
  flush();
}

void Experts::apply(const LayerContext& context, const MoeWeights& weights, std::span<const Loaded> group) {
  std::vector<ExpertRows> window;
  int64_t n = 0;
  for (const Loaded& expert : group) {
    for (size_t first = 0; first < expert.slots.size(); first += static_cast<size_t>(kExpertPiece)) {
      const auto slots = expert.slots.subspan(first, std::min(expert.slots.size() - first, static_cast<size_t>(kExpertPiece)));
      if (n + static_cast<int64_t>(slots.size()) > kExpertRows) {
        multiply(context, weights, window);
        window.clear();
        n = 0;
      }
      window.push_back({&expert, slots});
      n += static_cast<int64_t>(slots.size());
    }
  }
  if (!window.empty()) multiply(context, weights, window);
}

void Experts::multiply(const LayerContext& context, const MoeWeights& weights, std::span<const ExpertRows> window) {
  const int64_t hidden = hidden_, n_used = n_used_;
  std::vector<int64_t> slots;
  std::vector<float> shares;
  std::vector<Piece> pieces;
  std::vector<FfnWeights> views;
  views.reserve(window.size());
  pieces.reserve(window.size());
  std::vector<FfnRows> networks;
  const auto of_expert = [&](std::span<const float> biases, int64_t e) {
    const size_t width = biases.size() / static_cast<size_t>(n_experts_);
    return biases.subspan(static_cast<size_t>(e) * width, width);
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
    views.push_back({&expert->matrices[0], &expert->matrices[1], &expert->matrices[2], of_expert(weights.gate_bias, e),
                     of_expert(weights.up_bias, e), of_expert(weights.down_bias, e), e});
    networks.push_back({&views.back(), first, n, std::span(&pieces.back(), 1), {}});
  }
  for (const int64_t slot : slots) shares.push_back(weights_[static_cast<size_t>(slot)]);
  for (FfnRows& rows : networks) rows.shares = std::span(shares).subspan(static_cast<size_t>(rows.first), static_cast<size_t>(rows.n));

  const auto n_rows = static_cast<int64_t>(slots.size());
  float* y = context.work.input.resize(n_rows * hidden);
  float* out = context.work.output.resize(n_rows * hidden);
  parallel_for(n_rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) normal_.read(slots[static_cast<size_t>(i)] / n_used, 1, y + i * hidden);
  });
  ffn_block(context.compute, context.work, networks, context.layer.activation, context.layer.clamp_experts, {y, n_rows, hidden, hidden},
            out);
  add_outputs(slots, out);
}

// Per token in the order of the rows, which is that of the experts.
void Experts::add_outputs(std::span<const int64_t> slots, const float* out) {
  const int64_t hidden = hidden_, n_used = n_used_;
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
      sum_.read(row, 1, sum.data());
      for (size_t i = begins[token]; i < begins[token + 1]; ++i) {
        const float weight = weights_[static_cast<size_t>(slots[order[i]])];
        const float* of_expert = out + static_cast<int64_t>(order[i]) * hidden;
        for (int64_t k = 0; k < hidden; ++k) sum[static_cast<size_t>(k)] += weight * of_expert[k];
      }
      sum_.write(row, 1, sum.data());
    }
  });
}

}  // namespace quern
