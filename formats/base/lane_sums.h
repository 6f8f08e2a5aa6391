#pragma once

#include <array>
#include <span>

namespace quern {

// Sums in double in eight lanes, element i in lane i mod 8: the same on every CPU, and quick.
using LaneSums = std::array<double, 8>;

// The lanes added up in their order.
double total(const LaneSums& sums) noexcept;

// Add x^2, (x - y)^2 and h x y of every element, in this order of operations. Spans of one call have the same size. What continues a
// sum must start at a multiple of eight elements.
void add_squares(std::span<const float> x, LaneSums& sums) noexcept;
void add_squared_differences(std::span<const float> x, std::span<const float> y, LaneSums& sums) noexcept;
void add_weighted_products(std::span<const float> h, std::span<const float> x, std::span<const float> y, LaneSums& sums) noexcept;

}  // namespace quern
