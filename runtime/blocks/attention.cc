#include "runtime/blocks/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/math/vector_math.h"

namespace quern {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// Takes the keys that a query cannot see out of its row of scores, padding included.
void mask(const KeySegment& segment, int64_t position, int64_t lane, float* row) {
  int64_t first = 0, end = segment.count;
  if (segment.visible != nullptr) {
    for (int64_t key = 0; key < segment.count; ++key) {
      if (segment.visible[key * kPanelWidth + lane] == 0) row[key] = kMasked;
    }
  } else {
    end = std::clamp<int64_t>(position - segment.first_position + 1, 0, segment.count);
    if (segment.window != 0) first = std::clamp<int64_t>(position - segment.first_position - segment.window + 1, 0, end);
  }
  std::fill(row, row + first, kMasked);
  std::fill(row + end, row + padded_k(segment.count), kMasked);
}

// Replaces a row of scores by softmax numerators and returns the denominator.
double softmax(const AttentionShape& shape, float* row, int64_t n) {
  const auto sink = shape.sink == nullptr ? static_cast<double>(kMasked) : static_cast<double>(*shape.sink);
  const double largest = std::max(sink, n == 0 ? sink : static_cast<double>(largest_of(row, n)) * shape.scale);
  if (largest == static_cast<double>(kMasked)) {
    std::fill(row, row + n, 0.0f);
    return 0.0;
  }
  const double sum = exp_row(row, n, shape.scale, largest);
  return shape.sink == nullptr ? sum : sum + std::exp(sink - largest);
}

}  // namespace

KeySegment causal_segment(KeySegment run, int64_t n_keys, int64_t window, int64_t first_query, int64_t n_queries) {
  const int64_t first = window == 0 ? 0 : std::max<int64_t>(0, first_query - window + 1) / kStep * kStep;
  run.keys = run.keys.from_row(first);
  run.values = run.values.from_k(first);
  run.count = std::min(n_keys, first_query + n_queries) - first;
  run.first_position = first;
  run.window = window;
  return run;
}

void attend(const ProductKernel& kernel, const AttentionShape& shape, const QueryPanel& queries, std::span<const KeySegment> segments,
            FloatBuffer& scratch, float* out, int64_t out_stride) {
  const int64_t n_queries = queries.q.n_rows;
  int64_t n_keys = 0;
  for (const KeySegment& segment : segments) n_keys += padded_k(segment.count);
  const int64_t n_packed = kPanelWidth * std::max(padded_k(shape.key_dim), n_keys);
  float* packed = scratch.resize(n_packed + kPanelWidth * (n_keys + shape.value_dim));
  float* scores = packed + n_packed;  // [n_queries, n_keys]
  float* part = scores + kPanelWidth * n_keys;

  const PackedMatrix q = kernel.pack_rows(queries.q, packed);
  int64_t first = 0;
  for (const KeySegment& segment : segments) {
    PackedMatrix keys = segment.keys;
    keys.n = segment.count;
    kernel.multiply(q, keys, shape.key_dim, scores + first, n_keys);
    for (int64_t i = 0; i < n_queries; ++i) mask(segment, queries.first_position + i, i, scores + i * n_keys + first);
    first += padded_k(segment.count);
  }
  double sums[kPanelWidth] = {};
  for (int64_t i = 0; i < n_queries; ++i) sums[i] = softmax(shape, scores + i * n_keys, n_keys);

  first = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t n = segments[s].count;
    if (n == 0) continue;
    const PackedMatrix weights = kernel.pack_rows({scores + first, n_queries, n, n_keys}, packed);
    float* to = s == 0 ? out : part;
    const int64_t to_stride = s == 0 ? out_stride : shape.value_dim;
    kernel.multiply(weights, segments[s].values, n, to, to_stride);
    for (int64_t i = 0; s > 0 && i < n_queries; ++i) {
      for (int64_t j = 0; j < shape.value_dim; ++j) out[i * out_stride + j] += part[i * shape.value_dim + j];
    }
    first += padded_k(n);
  }
  for (int64_t i = 0; i < n_queries; ++i) {
    for (int64_t j = 0; j < shape.value_dim; ++j) {
      float& value = out[i * out_stride + j];
      value = sums[i] != 0.0 ? static_cast<float>(static_cast<double>(value) / sums[i]) : 0.0f;
    }
  }
}

}  // namespace quern
