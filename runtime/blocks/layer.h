#pragma once

#include <initializer_list>
#include <span>

#include "formats/model/hparams.h"
#include "runtime/blocks/workspace.h"
#include "runtime/math/linear.h"

namespace quern {

struct LayerCache;

// Rows of a batch that belong together: consecutive tokens of one sequence in a mixer, rows that an observer is told about in one call
// everywhere.
inline constexpr int64_t kQueryTile = 512;
struct Piece {
  int64_t first = 0;  // row of the batch
  int64_t n = 0;      // at most kQueryTile in a mixer
  LayerCache* cache = nullptr;
  bool rounded = false;  // see Sequence
};

// What the blocks of one layer read beside their weights, and memory for what they make.
struct LayerContext {
  const Hparams& hparams;
  int64_t number = 0;
  const LayerParams& layer;
  const Compute& compute;
  const RopeParams& rope;
  std::span<const double> frequencies;  // of `rope`
  Workspace& work;
};

// Tells the observer, if there is one, that these weights multiply x; those that the layer does not have (nullptr) are left out.
void observe(const LayerContext& context, std::initializer_list<const LogicalTensor*> weights, const Rows& x, int64_t slice = -1);
// The same, piece by piece.
void observe(const LayerContext& context, std::initializer_list<const LogicalTensor*> weights, const Rows& x,
             std::span<const Piece> pieces);

}  // namespace quern
