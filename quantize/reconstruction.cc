#include "quantize/reconstruction.h"

#include <algorithm>

#include "formats/base/parallel.h"
#include "formats/base/progress.h"
#include "formats/types/decode.h"

namespace quern {

std::vector<double> reconstruction_errors(const ModelSource& source, size_t tensor, std::span<const DType> types,
                                          const TensorEncoder& encoder) {
  const Shape& shape = source.tensors()[tensor].shape;
  const int64_t n_columns = shape.row_length(), n_rows = shape.n_rows();
  const int64_t n_sampled = std::min(n_rows, std::max(kErrorSampleRows, kErrorSampleWeights / n_columns));
  const size_t n_types = types.size();
  std::vector<double> of_row(static_cast<size_t>(n_sampled) * n_types);
  parallel_for(n_sampled, 1, [&](int64_t begin, int64_t end) {
    RawRows raw;
    std::vector<float> weights(static_cast<size_t>(n_columns)), decoded(weights.size());
    std::vector<std::byte> blocks;
    for (int64_t i = begin; i < end; ++i) {
      throw_if_interrupted();
      // The middle of the i-th of n_sampled equal parts; products of row counts stay far below 2^63.
      const int64_t row = (2 * i + 1) * n_rows / (2 * n_sampled);
      source.fetch(tensor, row, 1, raw);
      source.decode(raw, weights);
      for (size_t t = 0; t < n_types; ++t) {
        blocks.resize(static_cast<size_t>(row_size_bytes(types[t], n_columns)));
        encoder.encode(tensor, types[t], row, 1, weights, blocks);
        decode_blocks(types[t], blocks, decoded);
        of_row[static_cast<size_t>(i) * n_types + t] = encoder.error(tensor, types[t], row, weights, decoded);
      }
    }
  });
  std::vector<double> errors(n_types);
  for (size_t i = 0; i < of_row.size(); ++i) errors[i % n_types] += of_row[i];
  for (double& error : errors) error *= static_cast<double>(n_rows) / static_cast<double>(n_sampled);
  return errors;
}

}  // namespace quern
