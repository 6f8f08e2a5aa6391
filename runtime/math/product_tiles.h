#pragma once

#include "runtime/math/panels.h"

namespace quern {

// Whether this CPU has BF16 tiles and the system lets the process use them; asks for the permission, once.
bool tiles_are_available() noexcept;

// The kernels behind product_kernel(Arithmetic::kTiles); call them only where tiles are available.
PackedMatrix pack_rows_tiles(const Rows& x, float* out) noexcept;
PackedMatrix pack_weights_tiles(const Rows& w, float* out) noexcept;
PackedMatrix pack_columns_tiles(const Rows& w, float* out) noexcept;
void multiply_tiles(const PackedMatrix& x, const PackedMatrix& w, int64_t n_k, float* y, int64_t stride) noexcept;

}  // namespace quern
