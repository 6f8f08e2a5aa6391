#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantize/tensor_encoder.h"

namespace quern {

// Weights looked at per tensor when its error as some type is estimated, in at least kErrorSampleRows rows where there are as many.
inline constexpr int64_t kErrorSampleWeights = int64_t{1} << 16;
inline constexpr int64_t kErrorSampleRows = 48;

// Sum of TensorEncoder::error over the rows of the tensor, encoded and decoded, for every type. Estimated from rows spread evenly over the
// tensor, scaled to all of it; sums in row order, so the same on any number of threads.
std::vector<double> reconstruction_errors(const ModelSource& source, size_t tensor, std::span<const DType> types,
                                          const TensorEncoder& encoder);

}  // namespace quern
