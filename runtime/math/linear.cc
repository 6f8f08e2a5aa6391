#include "runtime/math/linear.h"

#include <algorithm>
#include <vector>

#include "formats/base/error.h"
#include "formats/base/parallel.h"

namespace quern {
namespace {

// Each thread has one and keeps it, because fresh megabytes cost page faults for every tile.
struct TileScratch {
  FloatBuffer weights;
  FloatBuffer packed;
};

// A tile of one of several products, and the number of its first row.
struct Task {
  const Product* product = nullptr;
  const RawRows* tile = nullptr;
  int64_t first_row = 0;
};

void multiply_tile(const Compute& compute, const Task& task, TileScratch& scratch) {
  const Product& product = *task.product;
  const int64_t n_k = product.w->n_columns, rows_per_group = product.w->n_rows / static_cast<int64_t>(product.x.size());
  const int64_t n_rows = task.tile->n_rows;
  float* weights = scratch.weights.resize(n_rows * n_k);
  compute.source->decode(*task.tile, {weights, static_cast<size_t>(n_rows * n_k)});
  for (int64_t row = 0; row < n_rows;) {
    const int64_t group = (task.first_row + row) / rows_per_group;
    const int64_t n = std::min(n_rows, (group + 1) * rows_per_group - task.first_row) - row;
    const PackedMatrix packed =
        compute.kernel->pack_weights({weights + row * n_k, n, n_k, n_k}, scratch.packed.resize(packed_floats(n, n_k)));
    compute.kernel->multiply(product.x[static_cast<size_t>(group)], packed, n_k, product.y + task.first_row + row, product.stride);
    row += n;
  }
}

std::vector<Task> tasks_of(std::span<const Product> products) {
  std::vector<Task> tasks;
  for (const Product& product : products) {
    for (const PackedMatrix& x : product.x) QUERN_CHECK(x.n_k == padded_k(product.w->n_columns));
    QUERN_CHECK(product.w->n_rows % static_cast<int64_t>(product.x.size()) == 0);
    int64_t row = 0;
    for (const RawRows& tile : product.w->tiles) {
      tasks.push_back({&product, &tile, row});
      row += tile.n_rows;
    }
    QUERN_CHECK(row == product.w->n_rows);
  }
  return tasks;
}

}  // namespace

void observe(const Compute& compute, std::span<const std::string_view> weights, const Rows& x, int64_t slice,
             std::span<const float> shares) {
  if (compute.observer == nullptr || weights.empty()) return;
  const PackedRows packed(x.data, x.n_rows, x.n_columns, x.stride);
  compute.observer->observe({weights, slice, &packed, shares});
}

PackedMatrix pack_input(const Compute& compute, const Rows& x, FloatBuffer& buffer) {
  constexpr int64_t kPanelsTogether = 2;
  float* out = buffer.resize(packed_floats(x.n_rows, x.n_columns));
  const int64_t n_panels = (x.n_rows + kPanelWidth - 1) / kPanelWidth, n_k = padded_k(x.n_columns);
  parallel_for(n_panels, kPanelsTogether, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPanelWidth, n = std::min(x.n_rows, end * kPanelWidth) - first;
    compute.kernel->pack_rows(x.slice(first, n), out + first * n_k);
  });
  return {out, x.n_rows, n_k};
}

void multiply(const Compute& compute, std::span<const Product> products) {
  const std::vector<Task> tasks = tasks_of(products);
  parallel_for(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    thread_local TileScratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      const Task& task = tasks[static_cast<size_t>(i)];
      try {
        multiply_tile(compute, task, scratch);
      } catch (Error& error) {
        error.tensor(task.product->w->info->name);
        throw;
      }
    }
  });
}

void linear(const Compute& compute, const StoredMatrix& w, const PackedMatrix& x, float* y, int64_t stride) {
  const Product product{&w, std::span(&x, 1), y, stride};
  multiply(compute, std::span(&product, 1));
}

std::vector<float> linear(const Compute& compute, const StoredMatrix& w, const PackedMatrix& x) {
  std::vector<float> y(static_cast<size_t>(x.n * w.n_rows));
  linear(compute, w, x, y.data(), w.n_rows);
  return y;
}

void linear(const Compute& compute, const StoredMatrix& w, const Rows& x, float* y, int64_t stride) {
  FloatBuffer buffer;
  linear(compute, w, pack_input(compute, x, buffer), y, stride);
}

void add_bias(std::span<const float> bias, int64_t n_tokens, float* y, int64_t stride) noexcept {
  if (bias.empty()) return;
  parallel_for(n_tokens, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (size_t o = 0; o < bias.size(); ++o) y[t * stride + static_cast<int64_t>(o)] += bias[o];
    }
  });
}

}  // namespace quern
