#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/math/weights.h"

namespace quern {

// How blocks hold their weights while a layer runs. A matrix stays as stored (StoredMatrix) and is decoded tile by tile in products.
// `info` is the tensor that a member came from; nullptr where the model does not have it.

// Held as floats: vectors, small tables, matrices that are used transposed.
struct FloatTensor {
  const LogicalTensor* info = nullptr;
  std::vector<float> values;

  bool empty() const noexcept { return values.empty(); }
  const float* data() const noexcept { return values.data(); }
  operator std::span<const float>() const noexcept { return values; }  // NOLINT: a view of the same values
};

// Held as int32: tables of experts.
struct IntegerTensor {
  const LogicalTensor* info = nullptr;
  std::vector<int32_t> values;
};

// A tensor of one block: its name without "blk.N.", the shape it must have, and the member that holds it, whose type says how.
struct BlockWeight {
  std::string name;
  Shape shape;
  std::variant<StoredMatrix*, FloatTensor*, IntegerTensor*> member;
};

// Collects the weights of a block. Every part of a block lists its members once, and that one list says which tensors a model must
// store, of which shapes, in which order they are read, and where each of them goes.
class WeightList {
 public:
  using Stored = std::function<bool(std::string_view name)>;

  // stored: whether the model has a tensor of the block, for parts that come in two forms.
  explicit WeightList(Stored stored) : stored_(std::move(stored)) {}

  bool stored(std::string_view name) const { return stored_(name); }

  void matrix(std::string name, int64_t n_rows, int64_t n_columns, StoredMatrix& member);
  void floats(std::string name, const Shape& shape, FloatTensor& member);
  void floats_if_stored(std::string name, const Shape& shape, FloatTensor& member);
  // [any number, n_columns]
  void integers(std::string name, int64_t n_columns, IntegerTensor& member);

  std::vector<BlockWeight> take() { return std::move(weights_); }

 private:
  Stored stored_;
  std::vector<BlockWeight> weights_;
};

// Puts a tensor that was read into the member of its weight. matrix: all its rows.
void hold(const ModelSource& source, StoredMatrix matrix, const BlockWeight& weight);

}  // namespace quern
