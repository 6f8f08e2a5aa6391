#include "runtime/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace quern {
namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();

bool is_visible(const KeySegment& segment, const QueryPanel& queries, int64_t key, int64_t lane) {
  if (segment.visible != nullptr) return segment.visible[key * kPanelWidth + lane] != 0;
  const int64_t distance = queries.first_position + lane - (segment.first_position + key);
  return distance >= 0 && (segment.window == 0 || distance < segment.window);
}

using Lanes = std::array<double, kPanelWidth>;

// Replaces scores by softmax numerators and returns the denominators.
Lanes softmax(const AttentionShape& shape, const QueryPanel& queries, std::span<const KeySegment> segments, float* scores) {
  Lanes largest, sum{};
  largest.fill(shape.sink == nullptr ? kMasked : static_cast<double>(*shape.sink));
  const auto for_each = [&](const auto& body) {
    float* row = scores;
    for (const KeySegment& segment : segments) {
      for (int64_t key = 0; key < segment.count; ++key, row += kPanelWidth) {
        for (int64_t lane = 0; lane < queries.n_queries; ++lane) body(segment, key, lane, row[lane]);
      }
    }
  };
  for_each([&](const KeySegment& segment, int64_t key, int64_t lane, float& score) {
    if (!is_visible(segment, queries, key, lane)) {
      score = -std::numeric_limits<float>::infinity();
      return;
    }
    const double scaled = static_cast<double>(score) * shape.scale;
    largest[static_cast<size_t>(lane)] = std::max(largest[static_cast<size_t>(lane)], scaled);
  });
  if (shape.sink != nullptr) {
    for (size_t lane = 0; lane < sum.size(); ++lane) sum[lane] = std::exp(static_cast<double>(*shape.sink) - largest[lane]);
  }
  for_each([&](const KeySegment&, int64_t, int64_t lane, float& score) {
    if (score == -std::numeric_limits<float>::infinity()) {
      score = 0.0f;
      return;
    }
    const auto i = static_cast<size_t>(lane);
    const double p = std::exp(static_cast<double>(score) * shape.scale - largest[i]);
    sum[i] += p;
    score = static_cast<float>(p);
  });
  return sum;
}

}  // namespace

KeySegment causal_segment(KeySegment run, int64_t n_keys, int64_t window, int64_t first_query, int64_t n_queries) {
  const int64_t first = window == 0 ? 0 : std::max<int64_t>(0, first_query - window + 1);
  run.keys += first * run.key_stride;
  run.values += first * run.value_stride;
  run.count = std::min(n_keys, first_query + n_queries) - first;
  run.first_position = first;
  run.window = window;
  return run;
}

void attend(PanelProduct product, const AttentionShape& shape, const QueryPanel& queries, std::span<const KeySegment> segments,
            std::vector<float>& scratch, float* out) {
  int64_t n_keys = 0;
  for (const KeySegment& segment : segments) n_keys += segment.count;
  const int64_t n_out = shape.value_dim * kPanelWidth;
  scratch.resize(static_cast<size_t>(n_keys * kPanelWidth + n_out));
  float* part = scratch.data() + n_keys * kPanelWidth;
  float* scores = scratch.data();
  for (const KeySegment& segment : segments) {
    product({segment.keys, segment.count, segment.key_stride, 1}, queries.q, shape.key_dim, scores);
    scores += segment.count * kPanelWidth;
  }
  scores = scratch.data();
  for (int64_t key = 0; key < n_keys; ++key) {
    std::fill(scores + key * kPanelWidth + queries.n_queries, scores + (key + 1) * kPanelWidth, 0.0f);
  }
  const Lanes sum = softmax(shape, queries, segments, scores);
  std::fill(out, out + n_out, 0.0f);
  for (const KeySegment& segment : segments) {
    product({segment.values, shape.value_dim, 1, segment.value_stride}, scores, segment.count, part);
    for (int64_t i = 0; i < n_out; ++i) out[i] += part[i];
    scores += segment.count * kPanelWidth;
  }
  for (int64_t i = 0; i < n_out; ++i) {
    const double denominator = sum[static_cast<size_t>(i % kPanelWidth)];
    out[i] = denominator > 0.0 ? static_cast<float>(static_cast<double>(out[i]) / denominator) : 0.0f;
  }
}

}  // namespace quern
