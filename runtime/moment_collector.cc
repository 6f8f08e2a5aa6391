#include "runtime/moment_collector.h"

#include <algorithm>

#include "formats/base/error.h"
#include "formats/base/parallel.h"

namespace quern {
namespace {

constexpr int64_t kHeldEvery = 8;

std::string_view block_of(std::string_view weight) {
  if (!weight.starts_with("blk.")) return {};
  return weight.substr(0, weight.find('.', 4) + 1);
}

// half += sum over panels of weight^2 x x^T. squares: [panels][16] squared weights of the rows, zero for missing ones.
void add_products(const std::vector<const float*>& panels, const std::vector<float>& squares, int64_t n_columns,
                  std::vector<double>& half) {
  constexpr int64_t kTogether = 4;
  parallel_for(n_columns, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j <= i; j += kTogether) {
        const int64_t n = std::min(kTogether, i + 1 - j);
        float sums[kTogether][kPanelWidth] = {};
        for (size_t p = 0; p < panels.size(); ++p) {
          const float* a = panels[p] + i * kPanelWidth;
          const float* w = squares.data() + static_cast<int64_t>(p) * kPanelWidth;
          for (int64_t c = 0; c < n; ++c) {
            const float* b = panels[p] + (j + c) * kPanelWidth;
            for (int64_t lane = 0; lane < kPanelWidth; ++lane) sums[c][lane] += w[lane] * a[lane] * b[lane];
          }
        }
        for (int64_t c = 0; c < n; ++c) {
          double sum = 0.0;
          for (const float lane : sums[c]) sum += static_cast<double>(lane);
          half[half_position(i, j + c)] += sum;
        }
      }
    }
  });
}

}  // namespace

MomentCollector::MomentCollector(StatisticsWriter& writer, std::function<bool(std::string_view)> wanted)
    : writer_(writer), wanted_(std::move(wanted)) {}

void MomentCollector::observe(const ObservedInput& input) {
  if (std::none_of(input.weights.begin(), input.weights.end(), wanted_)) return;
  const std::string_view first = input.weights.front();
  if (block_of(first) != block_) {
    close_block();
    block_ = block_of(first);
  }
  Open& open = open_[std::string(first)];
  if (open.weights.empty()) {
    open.weights.assign(input.weights.begin(), input.weights.end());
    open.n_columns = input.rows->n_columns();
    open.sliced = input.slice >= 0;
  }
  QUERN_CHECK(open.n_columns == input.rows->n_columns());
  const bool routed = !input.shares.empty();
  if (routed && !open.slices.empty() && !open.slices.contains(input.slice)) write_slice(open, open.slices.begin()->first);
  add(input, open.n_columns, open.slices[open.sliced ? input.slice : kWholeWeight]);
}

void MomentCollector::add(const ObservedInput& input, int64_t n_columns, Sums& sums) {
  const PackedRows& rows = *input.rows;
  sums.half.resize(half_position(n_columns, 0));
  sums.held.n_columns = n_columns;
  std::vector<const float*> panels;
  std::vector<float> squares;
  const auto flush = [&] {
    if (!panels.empty()) add_products(panels, squares, n_columns, sums.half);
    panels.clear();
    squares.clear();
  };
  for (int64_t p = 0; p < rows.n_panels(); ++p) {
    const float* panel = rows.panel(p);
    const int64_t n = std::min(kPanelWidth, rows.n_rows() - p * kPanelWidth);
    const auto share = [&](int64_t lane) {
      return input.shares.empty() ? 1.0f : input.shares[static_cast<size_t>(p * kPanelWidth + lane)];
    };
    if (++sums.n_panels % kHeldEvery == 0) {
      for (int64_t lane = 0; lane < n && sums.held.n_rows() < kMostHeld; ++lane) {
        for (int64_t j = 0; j < n_columns; ++j) sums.held.rows.push_back(share(lane) * panel[j * kPanelWidth + lane]);
      }
      continue;
    }
    panels.push_back(panel);
    sums.n_rows += n;
    for (int64_t lane = 0; lane < kPanelWidth; ++lane) {
      squares.push_back(lane < n ? share(lane) * share(lane) : 0.0f);
      double norm = 0.0;
      for (int64_t j = 0; j < n_columns; ++j) {
        const auto x = static_cast<double>(panel[j * kPanelWidth + lane]);
        norm += x * x;
      }
      norm *= static_cast<double>(squares.back());
      sums.fourth += norm * norm;
    }
    if (panels.size() == 16) flush();
  }
  flush();
}

void MomentCollector::write_slice(Open& open, int64_t slice) {
  const auto found = open.slices.find(slice);
  const Sums& sums = found->second;
  const auto to_moment = [&](const Sums& from) {
    SecondMoment moment{open.n_columns, from.n_rows, from.fourth, {}};
    moment.half.reserve(from.half.size());
    const double scale = from.n_rows > 0 ? 1.0 / static_cast<double>(from.n_rows) : 0.0;
    for (const double sum : from.half) moment.half.push_back(static_cast<float>(sum * scale));
    return moment;
  };
  writer_.add(open.weights, slice, to_moment(sums), sums.held);
  if (open.sliced && slice != kWholeWeight) {
    open.all.half.resize(sums.half.size());
    for (size_t k = 0; k < sums.half.size(); ++k) open.all.half[k] += sums.half[k];
    open.all.n_rows += sums.n_rows;
    open.all.fourth += sums.fourth;
  }
  open.slices.erase(found);
}

void MomentCollector::close_block() {
  for (auto& [name, open] : open_) {
    while (!open.slices.empty()) write_slice(open, open.slices.begin()->first);
    if (!open.sliced) continue;
    open.slices.emplace(kWholeWeight, std::move(open.all));
    write_slice(open, kWholeWeight);
  }
  open_.clear();
}

void MomentCollector::finish() {
  close_block();
  block_.clear();
}

}  // namespace quern
