#pragma once

#include "runtime/math/panels.h"

namespace quern {

// The kernels behind product_kernel(). kFloat and kPlain keep a panel as [n_k][16] floats, missing rows and steps as zeros.
PackedMatrix pack_rows_float(const Rows& rows, float* out) noexcept;
// Packs rows into panels of n_k steps, at least as many as the rows have columns.
void pack_panels_float(const Rows& rows, int64_t n_k, float* out) noexcept;
PackedMatrix pack_columns_float(const Rows& columns, float* out) noexcept;
void multiply_float(const PackedMatrix& x, const PackedMatrix& w, int64_t n_k, float* y, int64_t stride) noexcept;
void multiply_plain(const PackedMatrix& x, const PackedMatrix& w, int64_t n_k, float* y, int64_t stride) noexcept;

}  // namespace quern
