#include "runtime/blocks/layer.h"

#include <string_view>
#include <vector>

namespace quern {

void observe(const LayerContext& context, std::initializer_list<const LogicalTensor*> weights, const Rows& x, int64_t slice) {
  if (context.compute.observer == nullptr) return;
  std::vector<std::string_view> names;
  for (const LogicalTensor* weight : weights) {
    if (weight != nullptr) names.push_back(weight->name);
  }
  observe(context.compute, names, x, slice);
}

void observe(const LayerContext& context, std::initializer_list<const LogicalTensor*> weights, const Rows& x,
             std::span<const Piece> pieces) {
  for (const Piece& piece : pieces) observe(context, weights, x.slice(piece.first, piece.n));
}

}  // namespace quern
