#include "runtime/blocks/weight_list.h"

namespace quern {
namespace {

std::vector<int32_t> copy_integers(const ModelSource& source, const StoredMatrix& matrix) {
  std::vector<int32_t> ids;
  for (const RawRows& tile : matrix.tiles) {
    const size_t begin = ids.size();
    ids.resize(begin + static_cast<size_t>(tile.n_rows * matrix.n_columns));
    source.copy(tile, DType::I32, std::as_writable_bytes(std::span(ids).subspan(begin)));
  }
  return ids;
}

}  // namespace

void WeightList::matrix(std::string name, int64_t n_rows, int64_t n_columns, StoredMatrix& member) {
  weights_.push_back({std::move(name), {n_rows, n_columns}, &member});
}

void WeightList::floats(std::string name, const Shape& shape, FloatTensor& member) {
  weights_.push_back({std::move(name), shape, &member});
}

void WeightList::floats_if_stored(std::string name, const Shape& shape, FloatTensor& member) {
  if (stored(name)) floats(std::move(name), shape, member);
}

void WeightList::integers(std::string name, int64_t n_columns, IntegerTensor& member) {
  weights_.push_back({std::move(name), {0, n_columns}, &member});
}

void hold(const ModelSource& source, StoredMatrix matrix, const BlockWeight& weight) {
  if (auto* const* floats = std::get_if<FloatTensor*>(&weight.member)) {
    **floats = {matrix.info, decode_all(source, matrix)};
  } else if (auto* const* integers = std::get_if<IntegerTensor*>(&weight.member)) {
    **integers = {matrix.info, copy_integers(source, matrix)};
  } else {
    *std::get<StoredMatrix*>(weight.member) = std::move(matrix);
  }
}

}  // namespace quern
