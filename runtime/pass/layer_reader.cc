#include "runtime/pass/layer_reader.h"

#include <algorithm>

#include "formats/arch/stems.h"
#include "formats/base/error.h"

// A block's own list of weights (runtime/blocks/weight_list.h) drives everything here: what must be stored, what is requested and in which
// order, and where a tensor goes once it is taken. Requested and taken tiles must agree, so both walk the same list.

namespace quern {
namespace {

std::string list_problems(const std::vector<std::string>& problems) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, problems.size()); ++i) text += (i == 0 ? "" : "; ") + problems[i];
  if (problems.size() > kShown) text += "; and " + std::to_string(problems.size() - kShown) + " more";
  return text;
}

// Tables of integers have any number of rows.
bool has_shape(const LogicalTensor& tensor, const BlockWeight& weight) {
  if (!std::holds_alternative<IntegerTensor*>(weight.member)) return tensor.shape == weight.shape;
  return tensor.shape.rank() == 2 && tensor.shape[1] == weight.shape[1];
}

}  // namespace

LayerReader::LayerReader(const Hparams& hparams, const TensorIndex& index) : hparams_(hparams), index_(index) { check_tensors(); }

WeightList::Stored LayerReader::stored_in(int64_t layer) const {
  return [this, layer](std::string_view name) { return index_.find(block_name(layer, name)) != nullptr; };
}

void LayerReader::check_layer(int64_t layer, std::vector<std::string>& problems) const {
  const LayerParams& params = hparams_.layers[static_cast<size_t>(layer)];
  Block block(params);
  std::vector<BlockWeight> expected = block.list(hparams_, params, stored_in(layer));
  if (params.moe) {
    for (BlockWeight& stack : expert_stacks(hparams_)) expected.push_back(std::move(stack));
  }
  for (const BlockWeight& weight : expected) {
    const std::string name = block_name(layer, weight.name);
    const LogicalTensor* found = index_.find(name);
    if (found == nullptr) {
      problems.push_back("tensor '" + name + "' is missing");
    } else if (!has_shape(*found, weight)) {
      problems.push_back("tensor '" + name + "' has shape " + found->shape.to_string() + ", expected " + weight.shape.to_string());
    }
  }
  const std::string prefix = block_name(layer, "");
  for (const LogicalTensor& tensor : index_.source().tensors()) {
    if (!tensor.name.starts_with(prefix) || tensor.name.starts_with(prefix + "nextn.")) continue;
    const std::string_view name = std::string_view(tensor.name).substr(prefix.size());
    if (std::ranges::none_of(expected, [&](const BlockWeight& weight) { return weight.name == name; })) {
      problems.push_back("tensor '" + tensor.name + "' is not one the runtime knows for " + hparams_.arch);
    }
  }
}

void LayerReader::check_tensors() const {
  std::vector<std::string> problems;
  const auto n_blocks = static_cast<int64_t>(hparams_.layers.size());
  for (int64_t layer = 0; layer < n_blocks; ++layer) {
    const std::string prefix = block_name(layer, "");
    const bool stored = std::ranges::any_of(index_.source().tensors(), [&](const LogicalTensor& t) { return t.name.starts_with(prefix); });
    const bool draft_only = hparams_.n_mtp_layers > 0 && index_.find(block_name(hparams_.n_layers, "nextn.eh_proj.weight")) != nullptr;
    if (!stored && draft_only && layer < hparams_.n_layers) continue;  // a file that holds only the MTP block
    check_layer(layer, problems);
  }
  if (!problems.empty()) throw Error(ErrorKind::kFormat, list_problems(problems));
}

uint64_t LayerReader::layer_bytes(int64_t layer) const {
  uint64_t sum = 0;
  const std::string prefix = block_name(layer, "");
  for (const LogicalTensor& tensor : index_.source().tensors()) sum += tensor.name.starts_with(prefix) ? tensor.source_bytes : 0;
  return sum;
}

uint64_t LayerReader::expert_bytes(int64_t layer) const {
  uint64_t sum = 0;
  for (const BlockWeight& stack : expert_stacks(hparams_)) {
    sum += index_.find(block_name(layer, stack.name))->source_bytes / static_cast<uint64_t>(stack.shape[0]);
  }
  return sum;
}

void LayerReader::start(uint64_t prefetch_bytes) {
  if (!prefetcher_) prefetcher_ = std::make_unique<Prefetcher>(index_.source(), prefetch_bytes);
}

void LayerReader::request_block(int64_t layer) {
  const LayerParams& params = hparams_.layers[static_cast<size_t>(layer)];
  Block block(params);
  std::vector<RowTile> tiles;
  for (const BlockWeight& weight : block.list(hparams_, params, stored_in(layer))) {
    const LogicalTensor& tensor = *index_.find(block_name(layer, weight.name));
    const auto more = tile_rows(tensor, index_.number(tensor), 0, tensor.shape.n_rows());
    tiles.insert(tiles.end(), more.begin(), more.end());
  }
  prefetcher_->request(std::move(tiles));
}

Block LayerReader::take_block(int64_t layer) {
  const LayerParams& params = hparams_.layers[static_cast<size_t>(layer)];
  Block block(params);
  for (const BlockWeight& weight : block.list(hparams_, params, stored_in(layer))) {
    const LogicalTensor& tensor = *index_.find(block_name(layer, weight.name));
    hold(index_.source(), take(tensor, 0, tensor.shape.n_rows()), weight);
  }
  return block;
}

void LayerReader::request_expert(int64_t layer, int64_t expert) {
  std::vector<RowTile> tiles;
  for (const BlockWeight& stack : expert_stacks(hparams_)) {
    const LogicalTensor& tensor = *index_.find(block_name(layer, stack.name));
    const auto more = tile_rows(tensor, index_.number(tensor), expert * stack.shape[1], stack.shape[1]);
    tiles.insert(tiles.end(), more.begin(), more.end());
  }
  prefetcher_->request(std::move(tiles));
}

std::vector<StoredMatrix> LayerReader::take_expert(int64_t layer, int64_t expert) {
  std::vector<StoredMatrix> matrices;
  for (const BlockWeight& stack : expert_stacks(hparams_)) {
    matrices.push_back(take(*index_.find(block_name(layer, stack.name)), expert * stack.shape[1], stack.shape[1]));
  }
  return matrices;
}

StoredMatrix LayerReader::read(const LogicalTensor& tensor) {
  const int64_t n_rows = tensor.shape.n_rows();
  prefetcher_->request(tile_rows(tensor, index_.number(tensor), 0, n_rows));
  return take(tensor, 0, n_rows);
}

StoredMatrix LayerReader::take(const LogicalTensor& tensor, int64_t first_row, int64_t n_rows) {
  StoredMatrix matrix{&tensor, n_rows, tensor.shape.row_length(), {}};
  for (size_t i = tile_rows(tensor, index_.number(tensor), first_row, n_rows).size(); i > 0; --i) {
    matrix.tiles.push_back(prefetcher_->take());
  }
  const auto share = static_cast<uint64_t>(static_cast<double>(tensor.source_bytes) * static_cast<double>(n_rows) /
                                           static_cast<double>(tensor.shape.n_rows()));
  bytes_taken_ += share;
  if (progress_ != nullptr) progress_->advance(share);
  return matrix;
}

}  // namespace quern
