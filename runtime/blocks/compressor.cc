#include "runtime/blocks/compressor.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/base/error.h"
#include "runtime/math/product.h"
#include "runtime/math/vector_math.h"

namespace quern {

void Compressor::pool(int64_t block, float* out) const {
  const int64_t stride = shape_.projection_width();
  const int64_t own = (block * shape_.ratio - first_kept_) * stride + (shape_.overlap ? shape_.width : 0);
  const bool with_previous = shape_.overlap && block > 0;
  const int64_t previous = ((block - 1) * shape_.ratio - first_kept_) * stride;
  for (int64_t n = 0; n < shape_.width; ++n) {
    const auto for_each = [&](const auto& body) {
      for (int64_t i = 0; with_previous && i < shape_.ratio; ++i) body(static_cast<size_t>(previous + i * stride + n));
      for (int64_t i = 0; i < shape_.ratio; ++i) body(static_cast<size_t>(own + i * stride + n));
    };
    double largest = -std::numeric_limits<double>::infinity();
    for_each([&](size_t i) { largest = std::max(largest, static_cast<double>(score_[i])); });
    double sum = 0.0, weighted = 0.0;
    for_each([&](size_t i) {
      const double p = std::exp(static_cast<double>(score_[i]) - largest);
      sum += p;
      weighted += p * static_cast<double>(kv_[i]);
    });
    out[n] = static_cast<float>(weighted / sum);
  }
}

void Compressor::append(std::span<const float> kv, std::span<const float> gate, std::span<const float> position_bias,
                        std::span<const float> norm, const RopeParams& rope, std::span<const double> frequencies) {
  const int64_t stride = shape_.projection_width();
  const int64_t n_new = static_cast<int64_t>(kv.size()) / stride;
  kv_.insert(kv_.end(), kv.begin(), kv.end());
  for (int64_t i = 0; i < n_new; ++i) {
    const float* bias = position_bias.data() + (n_tokens_ + i) % shape_.ratio * stride;
    for (int64_t n = 0; n < stride; ++n) score_.push_back(gate[static_cast<size_t>(i * stride + n)] + bias[n]);
  }
  n_tokens_ += n_new;
  const int64_t n_complete = n_tokens_ / shape_.ratio;
  if (n_complete == n_entries_) return;
  entries_.resize(static_cast<size_t>(n_complete * shape_.width));
  const RopeTable table(rope, frequencies, n_entries_ * shape_.ratio, n_complete - n_entries_, shape_.ratio);
  for (int64_t b = n_entries_; b < n_complete; ++b) {
    float* entry = entries_.data() + b * shape_.width;
    pool(b, entry);
    rms_norm(entry, norm.data(), shape_.width, shape_.norm_eps, entry);
    table.rotate(entry + shape_.width - table.n_dims(), b - n_entries_);
  }
  n_entries_ = n_complete;
  const int64_t keep_from = std::max<int64_t>(0, n_complete - 1) * shape_.ratio;
  const auto drop = static_cast<ptrdiff_t>((keep_from - first_kept_) * stride);
  kv_.erase(kv_.begin(), kv_.begin() + drop);
  score_.erase(score_.begin(), score_.begin() + drop);
  first_kept_ = keep_from;
}

void keep_best(std::span<const double> scores, int64_t keep, uint8_t* visible) {
  std::vector<int64_t> order(scores.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  const auto better = [&](int64_t a, int64_t b) {
    const double sa = scores[static_cast<size_t>(a)], sb = scores[static_cast<size_t>(b)];
    return sa != sb ? sa > sb : a < b;
  };
  const auto n_kept = static_cast<ptrdiff_t>(std::min(keep, static_cast<int64_t>(order.size())));
  if (n_kept < static_cast<ptrdiff_t>(order.size())) std::nth_element(order.begin(), order.begin() + n_kept, order.end(), better);
  for (size_t i = 0; i < scores.size(); ++i) visible[i * kPanelWidth] = 0;
  for (ptrdiff_t i = 0; i < n_kept; ++i) visible[order[static_cast<size_t>(i)] * kPanelWidth] = 1;
}

}  // namespace quern
