#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model/hparams.h"
#include "runtime/math/weights.h"

namespace quern {

// How the runtime holds a tensor while its layer runs.
enum class Holding {
  kMatrix,   // as stored bytes, decoded tile by tile in products
  kValues,   // as floats: vectors, small tables, matrices that are used transposed
  kIntegers  // as int32: expert tables
};

// A tensor of one block, by its name without "blk.N.".
struct LayerTensor {
  std::string name;
  Shape shape;
  Holding holding = Holding::kMatrix;
  bool optional = false;
};

// What one block consists of, less the routed expert stacks. The only list of names in the runtime; shapes follow from the
// hyperparameters. has(name) tells whether the model stores a tensor: some layouts come in two forms.
std::vector<LayerTensor> layer_tensors(const Hparams& hparams, int64_t layer, const std::function<bool(std::string_view)>& has);

// The routed expert stacks of a MoE block: [E, out, in] each, gate, up, down.
std::vector<LayerTensor> expert_stacks(const Hparams& hparams);

// The tensors of a block in memory.
class LayerWeights {
 public:
  std::map<std::string, StoredMatrix, std::less<>> matrices;
  std::map<std::string, std::vector<float>, std::less<>> values;
  std::map<std::string, std::vector<int32_t>, std::less<>> integers;

  const StoredMatrix& matrix(std::string_view name) const;
  const StoredMatrix* find_matrix(std::string_view name) const noexcept;
  std::span<const float> value(std::string_view name) const noexcept;  // empty when absent
  uint64_t size_bytes() const noexcept;
};

}  // namespace quern
