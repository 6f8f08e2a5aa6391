#pragma once

#include <cstdint>

#include "runtime/math/weights.h"
#include "runtime/pass/evaluator.h"

namespace quern {

// The matrix that logits come from; has a row per token of the vocabulary. Throws kFormat when there is none.
const LogicalTensor& output_matrix(const TensorIndex& index, std::string_view name = "output.weight");

// The output matrix as stored bytes; every call decodes it once for all rows given.
class OutputHead {
 public:
  // name: "output.weight", or another matrix of the same shape; models without it share token_embd.weight. Reads it once.
  explicit OutputHead(const Evaluator& evaluator, std::string_view name = "output.weight");

  int64_t n_vocab() const noexcept { return matrix_.n_rows; }
  // How many rows of logits to compute at a time: a multiple of kPanelWidth, at most 512, 64 MiB of them where that is enough for one
  // panel. Logits of a row do not depend on it.
  int64_t rows_at_once() const noexcept;
  uint64_t size_bytes() const noexcept { return matrix_.size_bytes(); }
  // normalised states [n, hidden] -> logits [n, n_vocab]. Throws kFormat naming the matrix when a logit is not finite.
  void logits(const float* states, int64_t n, float* out) const;

 private:
  Compute compute_;
  StoredMatrix matrix_;
};

}  // namespace quern
