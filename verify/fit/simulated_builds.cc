#include "verify/fit/simulated_builds.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/base/progress.h"

// A batch is a set of groups, each of builds that agree so far and one set of states. In front of a layer every group is divided by the
// types that its builds have in that layer, and groups that then agree in the layer, though not in what came before, go through it together
// as sequences of one evaluator: its weights are encoded and read once for all of them. Groups only ever divide, so there are never more
// than builds. Behind the last layer they divide once more by the output matrix, and what is left are tails: final states and a matrix.
//
// All tails are scored a batch of rows at a time, so that the original's logits of those rows are computed once. Builds of one tail have
// the same figures. As many builds are taken at once as their states fit half the memory; cost() walks the same divisions without computing
// anything, which is how progress knows its end.

namespace quern {

struct SimulatedBuilds::Shared {
  std::vector<size_t> builds;
  std::vector<float> states;  // [n_tokens, state_width]
};

struct SimulatedBuilds::Tail {
  std::vector<size_t> builds;
  std::vector<float> states;                  // [n_scored, hidden], normalised
  std::shared_ptr<const ModelSource> source;  // shared by all tails of one output matrix, as are the two below
  std::shared_ptr<Evaluator> evaluator;
  std::shared_ptr<const OutputHead> head;
};

SimulatedBuilds::~SimulatedBuilds() = default;

SimulatedBuilds::SimulatedBuilds(const ModelSource& original, const TensorEncoder& encoder, BlockCache& cache, const EvalOptions& options,
                                 std::vector<Sequence> chunks, int64_t first_scored, Progress& progress)
    : original_(original),
      encoder_(encoder),
      cache_(cache),
      options_(options),
      chunks_(std::move(chunks)),
      first_scored_(first_scored),
      reference_(std::make_unique<Tail>()) {
  const auto start = std::chrono::steady_clock::now();
  auto evaluator = std::make_shared<Evaluator>(original, options);
  n_layers_ = evaluator->hparams().n_layers;
  of_part_.resize(static_cast<size_t>(n_layers_ + 2));
  for (size_t i = 0; i < original.tensors().size(); ++i) {
    const LogicalTensor& tensor = original.tensors()[i];
    if (tensor.name == "token_embd.weight") of_part_.front().push_back(i);
    if (tensor.layer >= 0 && tensor.layer < n_layers_) of_part_[static_cast<size_t>(tensor.layer + 1)].push_back(i);
    // A model without an output matrix uses the embedding's.
    if (tensor.layer < 0) of_part_.back().push_back(i);
  }
  const EvalPlan plan = evaluator->plan(chunks_);
  const uint64_t kept = static_cast<uint64_t>(plan.n_tokens * evaluator->hparams().state_width()) * sizeof(float);
  constexpr uint64_t kMostBuilds = 64;
  batch_ = static_cast<int64_t>(std::clamp<uint64_t>(options.memory_bytes / 2 / (plan.state_bytes + 2 * kept), 1, kMostBuilds));
  evaluator->forward(chunks_, progress);
  evaluator->drop_states();
  reference_->states = scored_states(*evaluator, 0);
  reference_->head = std::make_shared<OutputHead>(*evaluator);
  reference_->evaluator = std::move(evaluator);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  seconds_per_layer_ = spent.count() / static_cast<double>(n_layers_ + 1);
}

std::vector<DType> SimulatedBuilds::part_types(const TypeAssignment& build, int64_t part) const {
  std::vector<DType> types;
  for (const size_t tensor : of_part_[static_cast<size_t>(part + 1)]) types.push_back(build[tensor]);
  return types;
}

// Members of one group cut into groups that agree in a part, in the order of their first members.
std::vector<std::vector<size_t>> SimulatedBuilds::split(std::span<const TypeAssignment> builds, const std::vector<size_t>& members,
                                                        int64_t part) const {
  std::vector<std::vector<size_t>> groups;
  std::map<std::vector<DType>, size_t> known;
  for (const size_t build : members) {
    const auto [at, inserted] = known.try_emplace(part_types(builds[build], part), groups.size());
    if (inserted) groups.emplace_back();
    groups[at->second].push_back(build);
  }
  return groups;
}

std::vector<float> SimulatedBuilds::scored_states(const Evaluator& evaluator, size_t first_sequence) const {
  const int64_t hidden = evaluator.final_states().width();
  std::vector<float> states;
  for (size_t c = 0; c < chunks_.size(); ++c) {
    const int64_t n = static_cast<int64_t>(chunks_[c].tokens.size()) - 1 - first_scored_;
    const size_t begin = states.size();
    states.resize(begin + static_cast<size_t>(n * hidden));
    evaluator.final_states().read(evaluator.first_rows()[first_sequence + c] + first_scored_, n, states.data() + begin);
  }
  return states;
}

std::vector<SimulatedBuilds::Shared> SimulatedBuilds::embed(std::span<const TypeAssignment> builds) const {
  std::vector<size_t> all(builds.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  std::vector<Shared> result;
  for (std::vector<size_t>& group : split(builds, all, kEmbedding)) {
    const SimulatedSource source(original_, builds[group.front()], encoder_, &cache_);
    Evaluator evaluator(source, options_);
    evaluator.start(chunks_);
    evaluator.embed();
    Shared shared{std::move(group), std::vector<float>(static_cast<size_t>(evaluator.n_rows() * evaluator.states().width()))};
    evaluator.states().read(0, evaluator.n_rows(), shared.states.data());
    result.push_back(std::move(shared));
  }
  return result;
}

std::vector<SimulatedBuilds::Shared> SimulatedBuilds::run_layer(std::span<const TypeAssignment> builds, std::vector<Shared> states,
                                                                int64_t layer, Progress& progress) {
  struct Entry {
    size_t parent;
    std::vector<size_t> builds;
  };
  std::map<std::vector<DType>, std::vector<Entry>> variants;  // of the layer: all states that go through it
  for (size_t parent = 0; parent < states.size(); ++parent) {
    for (std::vector<size_t>& group : split(builds, states[parent].builds, layer)) {
      const std::vector<DType> types = part_types(builds[group.front()], layer);
      variants[types].push_back({parent, std::move(group)});
    }
  }
  std::vector<Shared> result;
  for (auto& [types, entries] : variants) {
    const SimulatedSource source(original_, builds[entries.front().builds.front()], encoder_, &cache_);
    EvalOptions options = options_;
    Evaluator evaluator(source, options);
    std::vector<Sequence> sequences;
    for (size_t i = 0; i < entries.size(); ++i) sequences.insert(sequences.end(), chunks_.begin(), chunks_.end());
    evaluator.start(std::move(sequences));
    const auto n_rows = evaluator.n_rows() / static_cast<int64_t>(entries.size());
    for (size_t i = 0; i < entries.size(); ++i)
      evaluator.set_states(static_cast<int64_t>(i) * n_rows, n_rows, states[entries[i].parent].states.data());
    evaluator.run_layers(layer, layer + 1, no_progress());
    for (size_t i = 0; i < entries.size(); ++i) {
      Shared shared{std::move(entries[i].builds), std::vector<float>(static_cast<size_t>(n_rows * evaluator.states().width()))};
      evaluator.states().read(static_cast<int64_t>(i) * n_rows, n_rows, shared.states.data());
      result.push_back(std::move(shared));
      progress.advance(1);
    }
  }
  return result;
}

std::vector<SimulatedBuilds::Tail> SimulatedBuilds::finish(std::span<const TypeAssignment> builds, std::vector<Shared> states) const {
  struct Head {
    std::shared_ptr<const ModelSource> source;
    std::shared_ptr<Evaluator> evaluator;
    std::shared_ptr<const OutputHead> head;
  };
  std::map<std::vector<DType>, Head> heads;
  std::vector<Tail> tails;
  for (Shared& shared : states) {
    for (std::vector<size_t>& group : split(builds, shared.builds, n_layers_)) {
      Head& head = heads[part_types(builds[group.front()], n_layers_)];
      if (!head.head) {
        head.source = std::make_shared<SimulatedSource>(original_, builds[group.front()], encoder_, &cache_);
        head.evaluator = std::make_shared<Evaluator>(*head.source, options_);
        head.head = std::make_shared<OutputHead>(*head.evaluator);
      }
      head.evaluator->start(chunks_);
      head.evaluator->set_states(0, head.evaluator->n_rows(), shared.states.data());
      head.evaluator->finish();
      head.evaluator->drop_states();
      tails.push_back({std::move(group), scored_states(*head.evaluator, 0), head.source, head.evaluator, head.head});
    }
    shared.states = {};
  }
  return tails;
}

void SimulatedBuilds::score(std::vector<Tail>& tails, std::vector<std::vector<double>>& kl) const {
  const int64_t n_vocab = reference_->head->n_vocab();
  const auto hidden = static_cast<int64_t>(reference_->evaluator->hparams().hidden);
  const int64_t n_rows = static_cast<int64_t>(reference_->states.size()) / hidden, batch = reference_->head->rows_at_once();
  std::vector<float> logits(static_cast<size_t>(batch * n_vocab));
  std::vector<double> original(static_cast<size_t>(batch * n_vocab));
  const auto row_of = [&](auto& values, int64_t row) {
    return std::span(values).subspan(static_cast<size_t>(row * n_vocab), static_cast<size_t>(n_vocab));
  };
  for (int64_t first = 0; first < n_rows; first += batch) {
    throw_if_interrupted();
    const int64_t n = std::min(batch, n_rows - first);
    reference_->head->logits(reference_->states.data() + first * hidden, n, logits.data());
    parallel_for(n, 1, [&](int64_t begin, int64_t end) {
      std::vector<double> p;
      for (int64_t i = begin; i < end; ++i) {
        log_softmax(row_of(logits, i), p);
        std::ranges::copy(p, row_of(original, i).begin());
      }
    });
    for (const Tail& tail : tails) {
      tail.head->logits(tail.states.data() + first * hidden, n, logits.data());
      std::vector<double>& out = kl[tail.builds.front()];
      parallel_for(n, 1, [&](int64_t begin, int64_t end) {
        std::vector<double> q;
        for (int64_t i = begin; i < end; ++i) {
          log_softmax(row_of(logits, i), q);
          out[static_cast<size_t>(first + i)] =
              compare_distributions(row_of(original, i), q, 0, -std::numeric_limits<double>::infinity()).kl;
        }
      });
    }
  }
  for (const Tail& tail : tails) {
    for (const size_t build : tail.builds) kl[build] = kl[tail.builds.front()];
  }
}

void SimulatedBuilds::measure_batch(std::span<const TypeAssignment> builds, std::span<std::vector<double>> kl, Progress& progress) {
  std::vector<Shared> states = embed(builds);
  for (int64_t layer = 0; layer < n_layers_; ++layer) {
    throw_if_interrupted();
    progress.step("layer " + std::to_string(layer + 1) + "/" + std::to_string(n_layers_));
    states = run_layer(builds, std::move(states), layer, progress);
  }
  std::vector<Tail> tails = finish(builds, std::move(states));
  const size_t n_scored = reference_->states.size() / static_cast<size_t>(reference_->evaluator->hparams().hidden);
  std::vector<std::vector<double>> results(builds.size(), std::vector<double>(n_scored));
  score(tails, results);
  progress.advance(tails.size());
  std::ranges::move(results, kl.begin());
}

std::vector<std::vector<double>> SimulatedBuilds::measure(std::span<const TypeAssignment> builds, Progress& progress) {
  std::vector<std::vector<double>> kl(builds.size());
  progress.begin("measuring builds", static_cast<uint64_t>(cost(builds)));
  for (size_t first = 0; first < builds.size(); first += static_cast<size_t>(batch_)) {
    const size_t n = std::min(builds.size() - first, static_cast<size_t>(batch_));
    measure_batch(builds.subspan(first, n), std::span(kl).subspan(first, n), progress);
  }
  progress.end();
  return kl;
}

int64_t SimulatedBuilds::cost(std::span<const TypeAssignment> builds) const {
  int64_t cost = 0;
  for (size_t first = 0; first < builds.size(); first += static_cast<size_t>(batch_)) {
    std::vector<std::vector<size_t>> groups(1);
    for (size_t i = first; i < std::min(builds.size(), first + static_cast<size_t>(batch_)); ++i) groups.front().push_back(i);
    for (int64_t part = kEmbedding; part <= n_layers_; ++part) {
      std::vector<std::vector<size_t>> next;
      for (const std::vector<size_t>& group : groups) {
        for (std::vector<size_t>& piece : split(builds, group, part)) next.push_back(std::move(piece));
      }
      groups = std::move(next);
      if (part != kEmbedding) cost += static_cast<int64_t>(groups.size());
    }
  }
  return cost;
}

}  // namespace quern
