#include "recipes/allocation.h"

#include <algorithm>
#include <cmath>

#include "formats/base/error.h"

// Two searches are made, and the better end counts.
//
// The first climbs from the smallest choice of every item: the choices of an item that lie on the lower convex hull of (bytes, loss) are
// steps, each with a gain per byte that falls along the hull, and the steps of all items are taken by falling gain while they fit. The
// second merges items one after the other and keeps the best sum in each of 4096 ranges of bytes. Both ends are then polished by steps that
// fit what is left, and by pairs of a step up and a step down, until neither gains. The hull is right for many small items, the merge for
// few large ones.

namespace quern {
namespace {

// Choices of one item that no other beats in both bytes and loss: bytes rise, loss falls.
std::vector<size_t> pareto(const AllocationItem& item) {
  std::vector<size_t> order(item.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    return item[a].size_bytes != item[b].size_bytes ? item[a].size_bytes < item[b].size_bytes : item[a].loss < item[b].loss;
  });
  std::vector<size_t> kept;
  for (const size_t choice : order) {
    if (kept.empty() || item[choice].loss < item[kept.back()].loss) kept.push_back(choice);
  }
  return kept;
}

// Gain in loss per byte of going from choice a to the larger b.
double slope(const AllocationItem& item, size_t a, size_t b) {
  return (item[a].loss - item[b].loss) / static_cast<double>(item[b].size_bytes - item[a].size_bytes);
}

std::vector<size_t> hull(const AllocationItem& item, const std::vector<size_t>& front) {
  std::vector<size_t> kept;
  for (const size_t choice : front) {
    while (kept.size() > 1 && slope(item, kept[kept.size() - 2], kept.back()) <= slope(item, kept.back(), choice)) kept.pop_back();
    kept.push_back(choice);
  }
  return kept;
}

class Search {
 public:
  Search(std::span<const AllocationItem> items, uint64_t budget_bytes)
      : items_(items), budget_bytes_(std::min<uint64_t>(budget_bytes, INT64_MAX)), chosen_(items.size()) {
    uint64_t used = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      fronts_.push_back(pareto(items[i]));
      chosen_[i] = fronts_[i].front();
      used += bytes(i);
    }
    left_ = static_cast<int64_t>(budget_bytes_) - static_cast<int64_t>(used);
  }

  std::vector<size_t> run() {
    climb_hulls();
    const double climbed = polish();
    const std::vector<size_t> from_hulls = chosen_;
    start_from(merge_states());
    return polish() < climbed ? chosen_ : from_hulls;
  }

 private:
  static constexpr int kMaxRounds = 10000;  // every round lowers the loss; a guard against rounding that says otherwise

  struct Step {
    size_t item = 0;
    size_t choice = 0;
    int64_t cost = 0;  // bytes
    double gain = 0.0;
  };

  void start_from(const std::vector<size_t>& choices) {
    for (size_t i = 0; i < items_.size(); ++i) take(step(i, choices[i]));
  }

  double polish() {
    for (int round = 0; round < kMaxRounds && (fill() || exchange()); ++round) {
    }
    double loss = 0.0;
    for (size_t i = 0; i < items_.size(); ++i) loss += items_[i][chosen_[i]].loss;
    return loss;
  }

  // Dynamic programming over the items: all combinations of the choices of the first i items, of which only the best in each of
  // kBuckets ranges of bytes go on. Exact while they are few.
  std::vector<size_t> merge_states() const {
    constexpr uint64_t kBuckets = 4096;
    struct State {
      uint64_t bytes = 0;
      double loss = 0.0;
      uint32_t before = 0;  // state of the items before
      uint32_t choice = 0;
    };
    std::vector<uint64_t> smallest_after(items_.size() + 1);
    for (size_t i = items_.size(); i > 0; --i) smallest_after[i - 1] = smallest_after[i] + items_[i - 1][fronts_[i - 1].front()].size_bytes;
    std::vector<std::vector<State>> layers = {{State{}}};
    for (size_t i = 0; i < items_.size(); ++i) {
      // Sums between the smallest and what the rest of the budget allows.
      const uint64_t least = smallest_after[0] - smallest_after[i + 1], range = budget_bytes_ - smallest_after[0] + 1;
      std::vector<State> best(kBuckets, State{UINT64_MAX, 0.0, 0, 0});
      for (size_t k = 0; k < layers.back().size(); ++k) {
        for (const size_t choice : fronts_[i]) {
          const State next{layers.back()[k].bytes + items_[i][choice].size_bytes, layers.back()[k].loss + items_[i][choice].loss,
                           static_cast<uint32_t>(k), static_cast<uint32_t>(choice)};
          if (next.bytes - least >= range) break;
          const double position = static_cast<double>(next.bytes - least) / static_cast<double>(range);
          State& kept = best[std::min(static_cast<uint64_t>(position * static_cast<double>(kBuckets)), kBuckets - 1)];
          const bool better = kept.bytes == UINT64_MAX || next.loss < kept.loss || (next.loss == kept.loss && next.bytes < kept.bytes);
          if (better) kept = next;
        }
      }
      std::vector<State> layer;
      for (const State& state : best) {
        if (state.bytes != UINT64_MAX && (layer.empty() || state.loss < layer.back().loss)) layer.push_back(state);
      }
      layers.push_back(std::move(layer));
    }
    std::vector<size_t> choices(items_.size());
    size_t state = layers.back().size() - 1;  // losses fall from state to state
    for (size_t i = items_.size(); i > 0; --i) {
      choices[i - 1] = layers[i][state].choice;
      state = layers[i][state].before;
    }
    return choices;
  }

  uint64_t bytes(size_t item) const { return items_[item][chosen_[item]].size_bytes; }
  Step step(size_t item, size_t choice) const {
    const AllocationChoice &from = items_[item][chosen_[item]], &to = items_[item][choice];
    return {item, choice, static_cast<int64_t>(to.size_bytes) - static_cast<int64_t>(from.size_bytes), from.loss - to.loss};
  }
  void take(const Step& taken) {
    chosen_[taken.item] = taken.choice;
    left_ -= taken.cost;
  }

  void climb_hulls() {
    struct Climb {
      size_t item, from, to;
      double slope;
    };
    std::vector<Climb> climbs;
    for (size_t i = 0; i < items_.size(); ++i) {
      const std::vector<size_t> corners = hull(items_[i], fronts_[i]);
      for (size_t k = 1; k < corners.size(); ++k)
        climbs.push_back({i, corners[k - 1], corners[k], slope(items_[i], corners[k - 1], corners[k])});
    }
    std::ranges::stable_sort(climbs, [](const Climb& a, const Climb& b) { return a.slope > b.slope; });
    for (const Climb& climb : climbs) {
      if (chosen_[climb.item] != climb.from) continue;  // an earlier step of this item did not fit
      const Step next = step(climb.item, climb.to);
      if (next.cost <= left_) take(next);
    }
  }

  bool fill() {
    Step best;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (const size_t choice : fronts_[i]) {
        const Step next = step(i, choice);
        if (next.cost <= left_ && next.gain > best.gain) best = next;
      }
    }
    if (best.gain <= 0.0) return false;
    take(best);
    return true;
  }

  // The pair of a gaining and a losing step that fits and gains most. Losing steps are sorted by bytes set free, with the least loss
  // among all that free at least as much, by two different items, so that an item never pays for itself.
  bool exchange() {
    std::vector<Step> down;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (const size_t choice : fronts_[i]) {
        if (const Step next = step(i, choice); next.cost < 0) down.push_back(next);
      }
    }
    std::ranges::stable_sort(down, [](const Step& a, const Step& b) { return a.cost < b.cost; });  // most freed first
    std::vector<std::pair<size_t, size_t>> best_two;                                               // prefix [0, k]: least loss, next item
    for (size_t k = 0; k < down.size(); ++k) {
      auto [first, second] = k == 0 ? std::pair(kNone, kNone) : best_two.back();
      const auto better = [&](size_t than) { return than == kNone || down[k].gain > down[than].gain; };
      if (first != kNone && down[first].item == down[k].item) {
        if (better(first)) first = k;
      } else if (better(first)) {
        second = first;
        first = k;
      } else if (better(second)) {
        second = k;
      }
      best_two.emplace_back(first, second);
    }
    double best_gain = 0.0;
    Step best_up, best_down;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (const size_t choice : fronts_[i]) {
        const Step up = step(i, choice);
        if (up.gain <= 0.0 || up.cost <= left_) continue;  // the latter is fill()'s
        const auto enough = std::ranges::partition_point(down, [&](const Step& s) { return up.cost + s.cost <= left_; });
        if (enough == down.begin()) continue;
        auto [first, second] = best_two[static_cast<size_t>(enough - down.begin()) - 1];
        const size_t paying = down[first].item != i ? first : second;
        if (paying == kNone || up.gain + down[paying].gain <= best_gain) continue;
        best_gain = up.gain + down[paying].gain;
        best_up = up;
        best_down = down[paying];
      }
    }
    if (best_gain <= 0.0) return false;
    take(best_down);
    take(best_up);
    return true;
  }

  static constexpr size_t kNone = SIZE_MAX;

  std::span<const AllocationItem> items_;
  uint64_t budget_bytes_;
  std::vector<std::vector<size_t>> fronts_;
  std::vector<size_t> chosen_;
  int64_t left_ = 0;
};

}  // namespace

uint64_t smallest_allocation(std::span<const AllocationItem> items) {
  uint64_t sum = 0;
  for (const AllocationItem& item : items) {
    sum += std::ranges::min_element(item, {}, &AllocationChoice::size_bytes)->size_bytes;
  }
  return sum;
}

std::optional<std::vector<size_t>> allocate(std::span<const AllocationItem> items, uint64_t budget_bytes) {
  for (const AllocationItem& item : items) {
    QUERN_CHECK(!item.empty() && std::ranges::all_of(item, [](const AllocationChoice& c) { return std::isfinite(c.loss); }));
  }
  if (smallest_allocation(items) > budget_bytes) return std::nullopt;
  return Search(items, budget_bytes).run();
}

}  // namespace quern
