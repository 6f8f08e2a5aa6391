#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/panel_product.h"
#include "runtime/weights.h"

namespace quern {

// What every product needs to know.
struct Compute {
  const ModelSource* source = nullptr;        // decodes the stored rows
  PanelProduct product = panel_product_fast;  // or panel_product_plain, the oracle
};

// y[t * stride + o] = sum_k w[o][k] x[t][k] for all tokens t of x and rows o of w. Each tile of w is decoded once and used for all
// tokens; tiles are shared among threads.
void linear(const Compute& compute, const StoredMatrix& w, const PackedRows& x, float* y, int64_t stride);

// Rows o of group g (n_rows / x.size() rows each) multiply x[g].
void grouped_linear(const Compute& compute, const StoredMatrix& w, std::span<const PackedRows> x, float* y, int64_t stride);

// y[t * stride + o] += bias[o]; an empty bias does nothing.
void add_bias(std::span<const float> bias, int64_t n_tokens, float* y, int64_t stride) noexcept;

}  // namespace quern
