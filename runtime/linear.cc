#include "runtime/linear.h"

#include <algorithm>

#include "formats/base/error.h"
#include "formats/base/parallel.h"

namespace quern {
namespace {

struct TileScratch {
  std::vector<float> weights;
  std::vector<float> out;
};

void multiply_tile(const Compute& compute, const StoredMatrix& w, const RawRows& tile, int64_t first_row, int64_t rows_per_group,
                   std::span<const PackedRows> x, float* y, int64_t stride, TileScratch& scratch) {
  scratch.weights.resize(static_cast<size_t>(tile.n_rows * w.n_columns));
  compute.source->decode(tile, scratch.weights);
  for (int64_t row = 0; row < tile.n_rows;) {
    const int64_t group = (first_row + row) / rows_per_group;
    const int64_t end = std::min(tile.n_rows, (group + 1) * rows_per_group - first_row);
    const PackedRows& input = x[static_cast<size_t>(group)];
    scratch.out.resize(static_cast<size_t>((end - row) * kPanelWidth));
    for (int64_t p = 0; p < input.n_panels(); ++p) {
      compute.product({scratch.weights.data() + row * w.n_columns, end - row, w.n_columns, 1}, input.panel(p), w.n_columns,
                      scratch.out.data());
      const int64_t token = p * kPanelWidth;
      unpack_panel(scratch.out.data(), std::min(kPanelWidth, input.n_rows() - token), end - row, y + token * stride + first_row + row,
                   stride);
    }
    row = end;
  }
}

}  // namespace

void observe(const Compute& compute, std::initializer_list<const StoredMatrix*> weights, const PackedRows& x, int64_t slice,
             std::span<const float> shares) {
  if (compute.observer == nullptr) return;
  std::vector<std::string_view> names;
  for (const StoredMatrix* weight : weights) names.push_back(weight->info->name);
  compute.observer->observe({names, slice, &x, shares});
}

void grouped_linear(const Compute& compute, const StoredMatrix& w, std::span<const PackedRows> x, float* y, int64_t stride) {
  const int64_t rows_per_group = w.n_rows / static_cast<int64_t>(x.size());
  for (const PackedRows& group : x) QUERN_CHECK(group.n_columns() == w.n_columns);
  std::vector<int64_t> first_rows;
  int64_t row = 0;
  for (const RawRows& tile : w.tiles) {
    first_rows.push_back(row);
    row += tile.n_rows;
  }
  QUERN_CHECK(row == w.n_rows && rows_per_group * static_cast<int64_t>(x.size()) == w.n_rows);
  parallel_for(static_cast<int64_t>(w.tiles.size()), 1, [&](int64_t begin, int64_t end) {
    TileScratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      const auto tile = static_cast<size_t>(i);
      try {
        multiply_tile(compute, w, w.tiles[tile], first_rows[tile], rows_per_group, x, y, stride, scratch);
      } catch (Error& error) {
        error.tensor(w.info->name);
        throw;
      }
    }
  });
}

void linear(const Compute& compute, const StoredMatrix& w, const PackedRows& x, float* y, int64_t stride) {
  grouped_linear(compute, w, std::span(&x, 1), y, stride);
}

void add_bias(std::span<const float> bias, int64_t n_tokens, float* y, int64_t stride) noexcept {
  for (int64_t t = 0; t < n_tokens; ++t) {
    for (size_t o = 0; o < bias.size(); ++o) y[t * stride + static_cast<int64_t>(o)] += bias[o];
  }
}

}  // namespace quern
