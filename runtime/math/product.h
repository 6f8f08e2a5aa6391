#pragma once

#include <cstdint>

#include "runtime/math/panels.h"

namespace quern {

// The products of the runtime. Linear layers, attention scores and attention outputs are all
//
//   y[i][o] = sum over k of x[i][k] * w[o][k]
//
// for many rows x and many outputs o, so one interface serves them all, with three arithmetics behind it:
//
//   kPlain  the oracle: products and sums in double, k ascending, rounded to float once
//   kFloat  f32 with fused multiply-add. Sums are cut into blocks of 256 products; in a block one sum, k ascending, block sums are
//           added in order. AVX2, AVX-512 and NEON give the same bits, because lanes of vectors are outputs, never positions in the
//           sum; CPUs without FMA round each product as well.
//   kTiles  BF16 parts on a CPU with AMX: x = x1 + x2 and w = w1 + w2 are split into a BF16 and the BF16 of what is left, and
//           x2 w1 + x1 w1 + x1 w2 is summed in f32 by tile instructions; x2 w2 is left out, and x1 w2 as well where all w2 are zero
//           (BF16 weights, FP4, powers of two). runtime/math/product_tiles.cc states the order.
//
// In each of them a y[i][o] has one order of operations that depends on k alone: not on the other rows and outputs, on blocking,
// memory or threads. Which arithmetic a CPU gets is decided in one place, fastest_arithmetic().
//
// Bounds, with u = 2^-24 and S = sum_k |x_k w_k|; second-order terms are covered by the factor 1.01:
//   kFloat  |y - exact| <= 1.01 (min(n, 256) + n / 256 + 1) u S: a rounding per step inside a block, one per block, one per product
//           for CPUs without FMA.
//   kTiles  A BF16 has 8 significant bits, so |x - x1| <= 2^-9 |x| and |x - x1 - x2| <= 2^-18 |x|, and the same for w. What is lost by
//           splitting: 2^-18 S for x, as much for w, and 2^-18 S for x2 w2; nothing but the first where w is BF16. The sums: of
//           each 32 products 16 pairs are added in two chains of 16 fused steps, the chains are added, and that to the total, three
//           times per 32 k: 1.01 (17 + 3 n / 32) u S. BF16 numbers below 2^-126 count as zero, which adds at most n 2^-125 (max|x| +
//           max|w|).
enum class Arithmetic { kPlain, kFloat, kTiles };

// The fastest that this CPU has and the system allows. The environment variable QUERN_ARITHMETIC=float keeps a CPU from using tiles,
// for measuring and for numbers that agree bit for bit with those of a CPU without them.
Arithmetic fastest_arithmetic();
// Its name in reports: "plain", "float" or "tiles".
const char* name_of(Arithmetic arithmetic) noexcept;

// |y - exact| <= product_bound(...) * sum_k |x_k w_k|, less underflow. exact_weights: every weight is a BF16.
double product_bound(Arithmetic arithmetic, int64_t n_k, bool exact_weights = false) noexcept;

// Kernels check nothing: the caller has checked the shapes.
struct ProductKernel {
  Arithmetic arithmetic;
  // x: one row per row of activations.
  PackedMatrix (*pack_rows)(const Rows& x, float* out) noexcept;
  // w: one row per output; or, in pack_columns, one row per k, as values of attention are stored.
  PackedMatrix (*pack_weights)(const Rows& w, float* out) noexcept;
  PackedMatrix (*pack_columns)(const Rows& w, float* out) noexcept;
  // y[i * stride + o] for all rows of x and outputs of w. n_k: products of each sum, at most those that were packed.
  void (*multiply)(const PackedMatrix& x, const PackedMatrix& w, int64_t n_k, float* y, int64_t stride) noexcept;
};

const ProductKernel& product_kernel(Arithmetic arithmetic);

}  // namespace quern
