#include "runtime/blocks/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "formats/base/error.h"

namespace quern {
namespace {

std::vector<double> probabilities(Gating gating, std::span<const float> logits) {
  std::vector<double> p(logits.begin(), logits.end());
  switch (gating) {
    case Gating::kSoftmax: {
      const double largest = *std::ranges::max_element(p);
      double sum = 0.0;
      for (double& v : p) sum += v = std::exp(v - largest);
      for (double& v : p) v /= sum;
      break;
    }
    case Gating::kSigmoid:
      for (double& v : p) v = 1.0 / (1.0 + std::exp(-v));
      break;
    case Gating::kSqrtSoftplus:
      for (double& v : p) v = std::sqrt(v > 0.0 ? v + std::log1p(std::exp(-v)) : std::log1p(std::exp(v)));
      break;
    case Gating::kSoftmaxOfSelected:
      break;
  }
  return p;
}

// Indices of the k largest values, largest first, ties to the lower index.
std::vector<int32_t> top_k(std::span<const double> values, int64_t k) {
  std::vector<int32_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto better = [&](int32_t a, int32_t b) {
    const double va = values[static_cast<size_t>(a)], vb = values[static_cast<size_t>(b)];
    return va != vb ? va > vb : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + k, order.end(), better);
  order.resize(static_cast<size_t>(k));
  return order;
}

double group_score(std::span<const double> choices, bool top_two) {
  double first = -std::numeric_limits<double>::infinity(), second = first;
  for (const double c : choices) {
    if (c > first) {
      second = first;
      first = c;
    } else if (c > second) {
      second = c;
    }
  }
  return top_two && choices.size() > 1 ? first + second : first;
}

void keep_best_groups(const RoutingParams& routing, std::vector<double>& choices) {
  const auto size = static_cast<size_t>(routing.n_experts / routing.n_groups);
  std::vector<double> scores;
  for (size_t first = 0; first < choices.size(); first += size) {
    scores.push_back(group_score(std::span(choices).subspan(first, size), routing.group_top_two));
  }
  std::vector<bool> kept(scores.size(), false);
  for (const int32_t g : top_k(scores, routing.n_groups_used)) kept[static_cast<size_t>(g)] = true;
  for (size_t e = 0; e < choices.size(); ++e) {
    if (!kept[e / size]) choices[e] = -std::numeric_limits<double>::infinity();
  }
}

void weigh(const RoutingParams& routing, std::span<const double> p, const Selection& out) {
  const auto n = static_cast<size_t>(routing.n_used);
  std::vector<double> w(n);
  double sum = 0.0, largest = -std::numeric_limits<double>::infinity();
  for (size_t j = 0; j < n; ++j) {
    w[j] = p[static_cast<size_t>(out.experts[j])];
    largest = std::max(largest, w[j]);
  }
  if (routing.gating == Gating::kSoftmaxOfSelected) {
    for (double& v : w) v = std::exp(v - largest);
  }
  for (const double v : w) sum += v;
  const bool divide = routing.normalize || routing.gating == Gating::kSoftmaxOfSelected;
  for (size_t j = 0; j < n; ++j) out.weights[j] = static_cast<float>((divide ? w[j] / (sum + 1e-20) : w[j]) * routing.scale);
}

}  // namespace

void route(const RoutingParams& routing, std::span<const float> logits, std::span<const float> bias, const Selection& out) {
  QUERN_CHECK(static_cast<int64_t>(logits.size()) == routing.n_experts && (bias.empty() || bias.size() == logits.size()));
  const std::vector<double> p = probabilities(routing.gating, logits);
  std::vector<double> choices = p;
  for (size_t e = 0; e < bias.size(); ++e) choices[e] += static_cast<double>(bias[e]);
  if (routing.n_groups > 1) keep_best_groups(routing, choices);
  std::ranges::copy(top_k(choices, routing.n_used), out.experts);
  weigh(routing, p, out);
}

void route_to(const RoutingParams& routing, std::span<const float> logits, std::span<const int32_t> experts, const Selection& out) {
  QUERN_CHECK(static_cast<int64_t>(experts.size()) == routing.n_used);
  std::ranges::copy(experts, out.experts);
  weigh(routing, probabilities(routing.gating, logits), out);
}

}  // namespace quern
