#include "formats/statistics/imatrix_coverage.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "formats/arch/stems.h"

namespace quern {
namespace {

void add_entry(const ImatrixEntry& entry, bool counts_are_chunks, LayerCoverage& layer) {
  ++layer.n_entries;
  layer.n_rows = std::max(layer.n_rows, *std::ranges::max_element(entry.counts));
  for (size_t i = 0; i < entry.sums.size(); ++i) {
    if (entry.counts[i / static_cast<size_t>(entry.n_columns)] == 0) continue;
    const float sum = entry.sums[i];
    ++layer.n_values;
    layer.n_unused += sum == 0.0f ? 1 : 0;
    layer.n_not_finite += std::isfinite(sum) && sum >= 0.0f ? 0 : 1;
  }
  const bool experts = entry.name.find("_exps.") != std::string::npos && entry.n_slices > 1;
  if (experts && !counts_are_chunks) layer.experts = entry.counts;
}

}  // namespace

std::vector<LayerCoverage> coverage_of(const Imatrix& imatrix) {
  std::map<int64_t, LayerCoverage> layers;
  for (const ImatrixEntry& entry : imatrix.entries) {
    const int64_t number = split_block_name(entry.name).layer;
    LayerCoverage& layer = layers[number];
    layer.layer = number;
    add_entry(entry, imatrix.counts_are_chunks(), layer);
  }
  std::vector<LayerCoverage> result;
  for (auto& [number, layer] : layers) result.push_back(std::move(layer));
  return result;
}

}  // namespace quern
