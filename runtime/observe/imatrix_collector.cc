#include "runtime/observe/imatrix_collector.h"

#include <algorithm>
#include <cmath>

#include "formats/arch/stems.h"
#include "formats/base/error.h"
#include "formats/base/parallel.h"

// Weights that multiply the same input share one set of sums, kept under the name of the first. Columns are divided among the threads, and
// each column adds its rows in the order of the calls, so the number of threads changes nothing; missing rows of a panel are zeros and add
// nothing. Layers run one after the other, so the first input of another block tells that the sums before it are complete: they become
// floats then, and doubles exist for one block at a time.

namespace quern {
namespace {

void add_squares(const PackedRows& rows, std::vector<double>& sums) {
  constexpr int64_t kGrain = 64;
  parallel_for(rows.n_columns(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t p = 0; p < rows.n_panels(); ++p) {
      for (int64_t j = begin; j < end; ++j) {
        const float* lanes = rows.panel(p) + j * kPanelWidth;
        double sum = sums[static_cast<size_t>(j)];
        for (int64_t lane = 0; lane < kPanelWidth; ++lane) sum += static_cast<double>(lanes[lane]) * static_cast<double>(lanes[lane]);
        sums[static_cast<size_t>(j)] = sum;
      }
    }
  });
}

ImatrixEntry make_entry(std::string name, int64_t n_columns, std::span<const std::vector<double>> slices, std::vector<int64_t> counts) {
  ImatrixEntry entry{std::move(name), n_columns, static_cast<int64_t>(slices.size()), {}, std::move(counts)};
  entry.sums.reserve(slices.size() * static_cast<size_t>(n_columns));
  for (const std::vector<double>& slice : slices) {
    for (int64_t j = 0; j < n_columns; ++j) entry.sums.push_back(slice.empty() ? 0.0f : static_cast<float>(slice[static_cast<size_t>(j)]));
  }
  if (std::ranges::all_of(entry.sums, [](float sum) { return std::isfinite(sum); })) return entry;
  throw Error(ErrorKind::kFormat, "its inputs are NaN or infinite; quern doctor looks for weights that are not finite").tensor(entry.name);
}

}  // namespace

ImatrixCollector::ImatrixCollector(std::span<const LogicalTensor> tensors) {
  for (const LogicalTensor& tensor : tensors) tensors_.emplace(tensor.name, &tensor);
}

// Floats of every weight and doubles of the largest block.
uint64_t ImatrixCollector::memory_bytes() const {
  std::map<int64_t, uint64_t> by_block;
  uint64_t sum = 0, largest = 0;
  for (const auto& [name, tensor] : tensors_) {
    if (tensor->shape.rank() < 2) continue;
    const auto columns = static_cast<uint64_t>(stacked_slices(name) * tensor->shape.row_length());
    sum += columns;
    largest = std::max(largest, by_block[split_block_name(name).layer] += columns);
  }
  return sum * sizeof(float) + largest * sizeof(double);
}

int64_t ImatrixCollector::stacked_slices(std::string_view weight) const {
  const Shape& shape = tensors_.at(weight)->shape;
  return shape.rank() == 3 ? shape[0] : 1;
}

ImatrixCollector::Sums& ImatrixCollector::sums_of(const ObservedInput& input) {
  const std::string_view first = input.weights.front();
  if (const int64_t block = split_block_name(first).layer; block != block_) {
    close_block();
    block_ = block;
  }
  const auto found = open_.find(first);
  if (found != open_.end()) return found->second;
  Sums& sums = open_[std::string(first)];
  for (const std::string_view weight : input.weights) sums.weights.push_back(tensors_.at(weight)->name);
  sums.n_columns = input.rows->n_columns();
  sums.slices.resize(static_cast<size_t>(stacked_slices(first)));
  return sums;
}

void ImatrixCollector::observe(const ObservedInput& input) {
  Sums& sums = sums_of(input);
  QUERN_CHECK(input.rows->n_columns() == sums.n_columns && input.weights.size() == sums.weights.size());
  const auto slice = static_cast<size_t>(std::max<int64_t>(input.slice, 0));
  if (slice >= sums.slices.size()) sums.slices.resize(slice + 1);  // groups of a matrix
  sums.counts.resize(sums.slices.size());
  std::vector<double>& of_slice = sums.slices[slice];
  of_slice.resize(static_cast<size_t>(sums.n_columns));
  add_squares(*input.rows, of_slice);
  sums.counts[slice] += input.rows->n_rows();
}

void ImatrixCollector::add_entries(const Sums& sums) {
  for (const std::string_view weight : sums.weights) {
    const bool grouped = stacked_slices(weight) == 1 && sums.slices.size() > 1;
    imatrix_.entries.push_back(make_entry(std::string(weight) + (grouped ? ".groups" : ""), sums.n_columns, sums.slices, sums.counts));
    if (!grouped) continue;
    std::vector<double> mean(static_cast<size_t>(sums.n_columns));  // every group sees every token
    for (const std::vector<double>& group : sums.slices) {
      for (size_t j = 0; j < mean.size(); ++j) mean[j] += group[j] / static_cast<double>(sums.slices.size());
    }
    imatrix_.entries.push_back(make_entry(std::string(weight), sums.n_columns, std::span(&mean, 1), {sums.counts.front()}));
  }
}

void ImatrixCollector::close_block() {
  for (const auto& [name, sums] : open_) add_entries(sums);
  open_.clear();
}

Imatrix ImatrixCollector::take() {
  close_block();
  block_ = -1;
  std::ranges::sort(imatrix_.entries, {}, &ImatrixEntry::name);
  return std::exchange(imatrix_, Imatrix());
}

}  // namespace quern
