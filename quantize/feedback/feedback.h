#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/types/dtype.h"
#include "quantize/feedback/factor.h"
#include "quantize/plain/encode.h"

namespace quern {

// True for the types that encode_rows_feedback can write: those of quantize/plain/encoders.h but with FeedbackKind::kNone.
bool has_feedback_encoder(DType dtype) noexcept;

// As encode_rows, but what is minimised is the error of the layer's output, (w - y) H (w - y)^T per row, with the H of the factor:
// columns are settled from left to right, 256 at a time, and the error of each moves the aim of all that follow (factor.h). The
// parameters of a sub-block are chosen when its turn comes, for the weights it has then to hit and by the error that nothing later can
// take back; those of a super-block when it begins, and again for the codes that were found, by least squares under H.
//
// x: [n_rows, n_cols], finite; factor.n_columns is n_cols. A row whose weights are too large for this arithmetic is encoded plainly with
// the diagonal of the factor. Same bytes on every CPU and for every split of the rows; single-threaded.
// Time: about n_cols / 2 multiplications per weight, and the search of a plain encoder three to six times.
void encode_rows_feedback(DType dtype, std::span<const float> x, int64_t n_rows, int64_t n_cols, const FeedbackFactor& factor,
                          Effort effort, std::span<std::byte> out);

// sum over rows i of (x - y) H (x - y)^T with the factor's H, per row of x and y: [n_rows, n_cols].
void feedback_errors(std::span<const float> x, std::span<const float> y, int64_t n_rows, const FeedbackFactor& factor,
                     std::span<double> errors);

}  // namespace quern
