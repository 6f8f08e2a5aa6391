#include "runtime/pass/output_head.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/types/decode.h"

namespace quern {

const LogicalTensor& output_matrix(const TensorIndex& index, std::string_view name) {
  const LogicalTensor* tensor = index.find(name);
  if (tensor == nullptr) tensor = index.find("token_embd.weight");
  if (tensor == nullptr) throw Error(ErrorKind::kFormat, "missing").tensor(name);
  return *tensor;
}

OutputHead::OutputHead(const Evaluator& evaluator, std::string_view name) : compute_(evaluator.compute()) {
  const TensorIndex& index = evaluator.index();
  const LogicalTensor& tensor = output_matrix(index, name);
  if (tensor.shape.rank() != 2 || tensor.shape[1] != evaluator.hparams().hidden) {
    throw Error(ErrorKind::kFormat,
                "shape " + tensor.shape.to_string() + ", expected rows of " + std::to_string(evaluator.hparams().hidden))
        .tensor(tensor.name);
  }
  const std::vector<RowTile> tiles = tile_rows(tensor, index.number(tensor), 0, tensor.shape[0]);
  matrix_ = {&tensor, tensor.shape[0], tensor.shape[1], std::vector<RawRows>(tiles.size())};
  parallel_for(static_cast<int64_t>(tiles.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      compute_.source->fetch(tiles[i].tensor, tiles[i].first_row, tiles[i].n_rows, matrix_.tiles[i]);
    }
  });
}

int64_t OutputHead::rows_at_once() const noexcept {
  constexpr int64_t kFloats = 1 << 24;
  return std::clamp<int64_t>(kFloats / n_vocab() / kPanelWidth * kPanelWidth, kPanelWidth, 512);
}

void OutputHead::logits(const float* states, int64_t n, float* out) const {
  linear(compute_, matrix_, Rows{states, n, matrix_.n_columns, matrix_.n_columns}, out, matrix_.n_rows);
  std::atomic<bool> finite = true;
  parallel_for(n, 1, [&](int64_t begin, int64_t end) {
    const std::span<const float> rows(out + begin * matrix_.n_rows, static_cast<size_t>((end - begin) * matrix_.n_rows));
    if (find_nonfinite_block(DType::F32, std::as_bytes(rows)) >= 0) finite = false;
  });
  if (!finite) {
    throw Error(ErrorKind::kFormat, "a logit is not finite").tensor(matrix_.info->name);
  }
}

}  // namespace quern
