#include "runtime/observe/moment_collector.h"

#include <algorithm>

#include "formats/arch/stems.h"

// An input is opened when it is first seen and written when no more of it can come, which the order of the calls tells. Dense inputs are
// complete when an input of another block arrives; an expert is complete when another one of the same stack arrives, because all rows of
// one expert come before those of the next. So a block needs the moments of its dense inputs, of one expert, and of the sum over experts,
// however many experts there are. finish() closes a block and hands back the inputs that are on the disk by then.

namespace quern {

MomentCollector::MomentCollector(StatisticsWriter& writer, std::function<bool(std::string_view)> wanted, OriginalRows original)
    : writer_(writer), wanted_(std::move(wanted)), original_(std::move(original)) {}

void MomentCollector::observe(const ObservedInput& input) {
  if (std::none_of(input.weights.begin(), input.weights.end(), wanted_)) return;
  const std::string_view first = input.weights.front();
  if (const int64_t block = split_block_name(first).layer; block != block_) {
    finish();
    block_ = block;
  }
  Open& open = open_[std::string(first)];
  if (open.weights.empty()) {
    open.weights.assign(input.weights.begin(), input.weights.end());
    open.sliced = input.slice >= 0;
  }
  const bool routed = !input.shares.empty();
  if (routed && !open.slices.empty() && !open.slices.contains(input.slice)) write_slice(open, open.slices.begin()->first);
  const int64_t slice = open.sliced ? input.slice : kWholeWeight;
  MomentSums& sums = open.slices.try_emplace(slice, input.rows->n_columns(), original_ != nullptr).first->second;
  if (original_) {
    const PackedRows original = original_(input);
    sums.add(*input.rows, input.shares, &original);
  } else {
    sums.add(*input.rows, input.shares, nullptr);
  }
}

void MomentCollector::write_slice(Open& open, int64_t slice) {
  const auto found = open.slices.find(slice);
  writer_.add(open.weights, slice, found->second.statistics());
  if (open.sliced) open.all.add(found->second);
  open.slices.erase(found);
}

std::vector<StatisticsWriter::Finished> MomentCollector::finish() {
  for (auto& [name, open] : open_) {
    while (!open.slices.empty()) write_slice(open, open.slices.begin()->first);
    if (open.sliced) writer_.add(open.weights, kWholeWeight, open.all.statistics());
  }
  open_.clear();
  return writer_.finish_inputs();
}

}  // namespace quern
