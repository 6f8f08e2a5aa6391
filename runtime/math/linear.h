#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/math/activation_observer.h"
#include "runtime/math/float_buffer.h"
#include "runtime/math/product.h"
#include "runtime/math/weights.h"

namespace quern {

// What every product needs to know.
struct Compute {
  const ModelSource* source = nullptr;  // decodes the stored rows
  const ProductKernel* kernel = &product_kernel(fastest_arithmetic());
  ActivationObserver* observer = nullptr;  // told about inputs by the blocks, not by the products below
};

// Tells the observer, if there is one, that these weights multiply x.
void observe(const Compute& compute, std::span<const std::string_view> weights, const Rows& x, int64_t slice = -1,
             std::span<const float> shares = {});

// Rows laid out for the kernel in `buffer`, which the result refers to; threads share the work.
PackedMatrix pack_input(const Compute& compute, const Rows& x, FloatBuffer& buffer);

// y[t * stride + o] = sum_k w[o][k] x[t][k] for all rows t of x and rows o of w.
struct Product {
  const StoredMatrix* w = nullptr;
  std::span<const PackedMatrix> x;  // one; or several, when rows o of group g (n_rows / x.size() rows each) multiply x[g]
  float* y = nullptr;
  int64_t stride = 0;
};

// Several products at once. Each tile of weights is decoded once and used for all rows of its input; tiles of all products are shared
// among threads, so that products too small to occupy them all fill up one another.
void multiply(const Compute& compute, std::span<const Product> products);

// One product of one input.
void linear(const Compute& compute, const StoredMatrix& w, const PackedMatrix& x, float* y, int64_t stride);
// The same into memory of its own: [x.n, w.n_rows].
std::vector<float> linear(const Compute& compute, const StoredMatrix& w, const PackedMatrix& x);
// One product of rows that are multiplied only once, so that packing them is left to it.
void linear(const Compute& compute, const StoredMatrix& w, const Rows& x, float* y, int64_t stride);

// y[t * stride + o] += bias[o]; an empty bias does nothing.
void add_bias(std::span<const float> bias, int64_t n_tokens, float* y, int64_t stride) noexcept;

}  // namespace quern
