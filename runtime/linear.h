#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/activation_observer.h"
#include "runtime/panel_product.h"
#include "runtime/weights.h"

namespace quern {

// What every product needs to know.
struct Compute {
  const ModelSource* source = nullptr;        // decodes the stored rows
  PanelProduct product = panel_product_fast;  // or panel_product_plain, the oracle
  ActivationObserver* observer = nullptr;     // told about inputs by the blocks, not by the products below
};

// Tells the observer, if there is one, that these weights multiply x.
void observe(const Compute& compute, std::initializer_list<const StoredMatrix*> weights, const PackedRows& x, int64_t slice = -1,
             std::span<const float> shares = {});

// y[t * stride + o] = sum_k w[o][k] x[t][k] for all tokens t of x and rows o of w. Each tile of w is decoded once and used for all
// tokens; tiles are shared among threads.
void linear(const Compute& compute, const StoredMatrix& w, const PackedRows& x, float* y, int64_t stride);

// Rows o of group g (n_rows / x.size() rows each) multiply x[g].
void grouped_linear(const Compute& compute, const StoredMatrix& w, std::span<const PackedRows> x, float* y, int64_t stride);

// y[t * stride + o] += bias[o]; an empty bias does nothing.
void add_bias(std::span<const float> bias, int64_t n_tokens, float* y, int64_t stride) noexcept;

}  // namespace quern
