#include "convert/plan/chunks.h"

#include <algorithm>

#include "formats/base/error.h"

namespace quern {

Chunks::Chunks(const Plan& plan) : plan_(plan), first_chunk_(1, 0) {
  for (const PlannedTensor& tensor : plan.tensors) {
    const int64_t n_chunks = (tensor.shape.n_rows() + tensor.chunk_rows - 1) / tensor.chunk_rows;
    first_chunk_.push_back(first_chunk_.back() + n_chunks);
  }
}

Chunk Chunks::operator[](int64_t index) const {
  QUERN_CHECK(index >= 0 && index < count());
  const auto next = std::upper_bound(first_chunk_.begin(), first_chunk_.end(), index);
  const size_t k = static_cast<size_t>(next - first_chunk_.begin()) - 1;
  const PlannedTensor& tensor = plan_.tensors[k];
  const int64_t first_row = (index - first_chunk_[k]) * tensor.chunk_rows;
  return {k, first_row, std::min(tensor.chunk_rows, tensor.shape.n_rows() - first_row)};
}

std::optional<int64_t> Chunks::beginning_at(size_t tensor, int64_t row) const {
  if (tensor == plan_.tensors.size()) return row == 0 ? std::optional(count()) : std::nullopt;
  if (tensor > plan_.tensors.size() || row < 0 || row >= plan_.tensors[tensor].shape.n_rows()) return std::nullopt;
  if (row % plan_.tensors[tensor].chunk_rows != 0) return std::nullopt;
  return first_chunk_[tensor] + row / plan_.tensors[tensor].chunk_rows;
}

uint64_t Chunks::source_bytes(const Chunk& chunk) const {
  const PlannedTensor& tensor = plan_.tensors[chunk.tensor];
  const uint64_t n_rows = static_cast<uint64_t>(tensor.shape.n_rows());
  // bytes * row / n_rows without the product, which may pass 64 bits
  const auto before = [&](int64_t row) {
    const uint64_t r = static_cast<uint64_t>(row);
    return tensor.source_bytes / n_rows * r + tensor.source_bytes % n_rows * r / n_rows;
  };
  return before(chunk.first_row + chunk.n_rows) - before(chunk.first_row);
}

uint64_t Chunks::source_bytes(Range range) const {
  uint64_t bytes = 0;
  for (int64_t i = range.first; i < range.last; ++i) bytes += source_bytes((*this)[i]);
  return bytes;
}

uint64_t Chunks::output_bytes(size_t output, const Chunk& chunk) const {
  const DType type = plan_.outputs[output].tensors[chunk.tensor].type;
  return static_cast<uint64_t>(chunk.n_rows) * row_size_bytes(type, plan_.tensors[chunk.tensor].shape.row_length());
}

uint64_t Chunks::data_position(size_t output, int64_t index) const {
  const PlannedOutput& planned = plan_.outputs[output];
  if (index == count()) return planned.tensor_bytes;
  const Chunk chunk = (*this)[index];
  uint64_t position = 0;
  for (size_t k = 0; k < chunk.tensor; ++k) position += planned.tensors[k].size_bytes;
  const Placement& placement = planned.tensors[chunk.tensor];
  const uint64_t row_bytes = row_size_bytes(placement.type, plan_.tensors[chunk.tensor].shape.row_length());
  return position + static_cast<uint64_t>(chunk.first_row) * row_bytes;
}

int64_t Chunks::cut(int64_t k, int64_t n) const {
  if (k == n) return count();
  const auto bytes_of = [&](size_t t) {
    uint64_t bytes = plan_.tensors[t].source_bytes;
    for (const PlannedOutput& output : plan_.outputs) bytes += output.tensors[t].size_bytes;
    return bytes;
  };
  uint64_t total = 0;
  for (size_t t = 0; t < plan_.tensors.size(); ++t) total += bytes_of(t);
  const uint64_t parts = static_cast<uint64_t>(n), part = static_cast<uint64_t>(k);
  const uint64_t target = total / parts * part + total % parts * part / parts;
  uint64_t before = 0;
  for (size_t t = 0; t < plan_.tensors.size(); ++t) {
    const uint64_t bytes = bytes_of(t);
    if (before + bytes > target) {
      const double inside = static_cast<double>(target - before) / static_cast<double>(bytes);
      const int64_t n_chunks = first_chunk_[t + 1] - first_chunk_[t];
      return first_chunk_[t] + static_cast<int64_t>(inside * static_cast<double>(n_chunks));
    }
    before += bytes;
  }
  return count();
}

Chunks::Range Chunks::part(int64_t k, int64_t n) const {
  QUERN_CHECK(n >= 1 && k >= 0 && k < n);
  return {cut(k, n), cut(k + 1, n)};
}

}  // namespace quern
