#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/model/model_source.h"
#include "formats/statistics/importance.h"
#include "quantize/feedback/feedback_encoder.h"
#include "quantize/plain/encode.h"

namespace quern {

// How rows of a model's tensors become blocks: the encoder of a type together with what is known about the tensor's inputs. Whoever
// writes, simulates or re-derives a build encodes through this, so all make the same bytes.
//
// With feedback, tensors that have statistics and types that can have feedback use it (quantize/feedback/feedback_encoder.h); everything
// else is encoded by encode_rows_unbiased with the importance of its slice.
class TensorEncoder {
 public:
  // All outlive the encoder. importance: nullptr for uniform. feedback: nullptr for none; log: of what feedback does, or nullptr.
  explicit TensorEncoder(const ModelSource& source, const Importance* importance = nullptr, Effort effort = Effort::kDefault,
                         FeedbackEncoder* feedback = nullptr, FeedbackLog* log = nullptr)
      : source_(source), importance_(importance), effort_(effort), feedback_(feedback), log_(log) {}

  // weights: n_rows x row_length floats, rows [first_row, first_row + n_rows) of the tensor. out: the blocks, exactly.
  // Same bytes for every division into rows. Thread-safe; single-threaded, but for the factorisation of second moments.
  void encode(size_t tensor, DType type, int64_t first_row, int64_t n_rows, std::span<const float> weights, std::span<std::byte> out) const;

  // Expected squared error of the tensor's outputs when its row `row`, w, becomes y, as far as it is known: with second moments of the
  // inputs where they are, else with the importance of the columns, and with 1 for each without any. One unit for all types of a tensor.
  double error(size_t tensor, DType type, int64_t row, std::span<const float> w, std::span<const float> y) const;

 private:
  // Weights of the columns of the slice that holds `row`; empty: uniform.
  std::span<const float> importance(size_t tensor, int64_t row) const noexcept;
  int64_t rows_per_slice(size_t tensor) const noexcept;

  const ModelSource& source_;
  const Importance* importance_;
  Effort effort_;
  FeedbackEncoder* feedback_;
  FeedbackLog* log_;
};

}  // namespace quern
