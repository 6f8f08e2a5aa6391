#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace quern {

// The choice of one type per tensor under a budget of bytes: a multiple-choice knapsack.

// What a tensor may become.
struct AllocationChoice {
  uint64_t size_bytes = 0;
  double loss = 0.0;  // finite; what is lost adds up over the tensors
};

using AllocationItem = std::vector<AllocationChoice>;

// Of every item its choice of the least bytes.
uint64_t smallest_allocation(std::span<const AllocationItem> items);

// For every item the number of its choice, so that all together fit the budget and lose as little as we can find; empty when not even
// the smallest fits.
//
// Method: two searches, of which the better result counts. Dynamic programming over the items keeps the best partial choice in each of
// 4096 ranges of bytes and is exact while there are few items. The steps along the lower convex hull of every item's (bytes, loss),
// taken by falling gain per byte, are optimal for every budget at which a step ends (Lagrange) however many items there are. What is
// left of the budget is filled by any further step that fits, best first, and by exchanges that make one item larger and another
// smaller. Tests compare with exhaustive search. Ties go to the first item and the fewest bytes, so that the result is a function of
// the numbers alone.
std::optional<std::vector<size_t>> allocate(std::span<const AllocationItem> items, uint64_t budget_bytes);

}  // namespace quern
