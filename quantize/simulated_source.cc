#include "quantize/simulated_source.h"

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/types/decode.h"

namespace quern {

bool BlockCache::find(const Key& key, std::vector<std::byte>& blocks) const {
  const std::lock_guard lock(mutex_);
  const auto found = blocks_.find(key);
  if (found == blocks_.end()) return false;
  blocks.assign(found->second.begin(), found->second.end());
  return true;
}

void BlockCache::add(const Key& key, std::span<const std::byte> blocks) {
  constexpr uint64_t kEntryBytes = 160;  // of the map itself
  const std::lock_guard lock(mutex_);
  if (used_bytes_ + blocks.size() + kEntryBytes > budget_bytes_) return;
  if (blocks_.try_emplace(key, blocks.begin(), blocks.end()).second) used_bytes_ += blocks.size() + kEntryBytes;
}

SimulatedSource::SimulatedSource(const ModelSource& base, std::span<const std::optional<DType>> types, const TensorEncoder& encoder,
                                 BlockCache* cache)
    : base_(base), encoder_(encoder), cache_(cache), tensors_(base.tensors().begin(), base.tensors().end()), encoded_(types.size()) {
  QUERN_CHECK(types.size() == tensors_.size());
  for (size_t i = 0; i < types.size(); ++i) {
    encoded_[i] = types[i] && tensors_[i].keep != Keep::kInteger && !base.can_copy(i, *types[i]);
    if (!encoded_[i]) continue;
    tensors_[i].source_type = *types[i];
    tensors_[i].source_bytes = tensor_size_bytes(*types[i], tensors_[i].shape);
  }
}

Exactness SimulatedSource::exactness(size_t tensor) const {
  return encoded(tensor) ? Exactness{tensors_[tensor].source_type, ""} : base_.exactness(tensor);
}

uint64_t SimulatedSource::raw_bytes(size_t tensor, int64_t n_rows) const {
  if (!encoded(tensor)) return base_.raw_bytes(tensor, n_rows);
  return static_cast<uint64_t>(n_rows) * row_size_bytes(tensors_[tensor].source_type, tensors_[tensor].shape.row_length());
}

void SimulatedSource::fetch(size_t tensor, int64_t first_row, int64_t n_rows, RawRows& raw) const {
  if (!encoded(tensor)) return base_.fetch(tensor, first_row, n_rows, raw);
  const BlockCache::Key key{tensor, tensors_[tensor].source_type, first_row, n_rows};
  raw.tensor = tensor;
  raw.first_row = first_row;
  raw.n_rows = n_rows;
  if (cache_ != nullptr && cache_->find(key, raw.bytes)) return;
  RawRows stored;
  base_.fetch(tensor, first_row, n_rows, stored);
  const int64_t n_columns = tensors_[tensor].shape.row_length();
  const auto row_bytes = static_cast<int64_t>(row_size_bytes(key.type, n_columns));
  std::vector<float> weights(static_cast<size_t>(n_rows * n_columns));
  base_.decode(stored, weights);
  raw.bytes.resize(static_cast<size_t>(n_rows * row_bytes));
  parallel_for(n_rows, 16, [&](int64_t begin, int64_t end) {
    const auto part = [&](auto span, int64_t unit) {
      return span.subspan(static_cast<size_t>(begin * unit), static_cast<size_t>((end - begin) * unit));
    };
    encoder_.encode(tensor, key.type, first_row + begin, end - begin, part(std::span<const float>(weights), n_columns),
                    part(std::span<std::byte>(raw.bytes), row_bytes));
  });
  if (cache_ != nullptr) cache_->add(key, raw.bytes);
}

void SimulatedSource::decode(const RawRows& raw, std::span<float> out) const {
  if (!encoded(raw.tensor)) return base_.decode(raw, out);
  decode_blocks(tensors_[raw.tensor].source_type, raw.bytes, out);
}

bool SimulatedSource::can_copy(size_t tensor, DType type) const {
  return encoded(tensor) ? type == tensors_[tensor].source_type : base_.can_copy(tensor, type);
}

void SimulatedSource::copy(const RawRows& raw, DType type, std::span<std::byte> out) const {
  if (!encoded(raw.tensor)) return base_.copy(raw, type, out);
  QUERN_CHECK(type == tensors_[raw.tensor].source_type && out.size() == raw.bytes.size());
  std::copy(raw.bytes.begin(), raw.bytes.end(), out.begin());
}

}  // namespace quern
