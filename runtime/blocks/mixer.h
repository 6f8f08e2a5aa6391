#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/blocks/layer.h"
#include "runtime/blocks/weight_list.h"

namespace quern {

// The part of a layer through which the tokens of a sequence reach one another: attention of any kind, or a recurrence. Everything that
// is particular to a kind is in one file: its weights, what it remembers of a sequence, what that and its work weigh, and how it runs.
// mixer_kinds.h has a row per kind.

// What a mixer remembers of one sequence in one layer, extended by each run: keys and values that grow with the tokens, or a state that
// does not. A prefill starts with an empty one, generation keeps it.
struct LayerCache {
  virtual ~LayerCache() = default;
  virtual void clear() noexcept = 0;  // empty again, with the memory it had

  int64_t n_tokens = 0;
};

// The keys and values of most kinds of attention, row by row.
struct KeyValueCache : LayerCache {
  void clear() noexcept override {
    n_tokens = 0;
    keys.clear();
    values.clear();
  }

  std::vector<float> keys, values;  // [n_tokens, width of the kind]
};

// A mixer with its weights. Immutable once they are held.
class Mixer {
 public:
  virtual ~Mixer() = default;
  virtual void list(const Hparams& hparams, const LayerParams& layer, WeightList& weights) = 0;
  virtual std::unique_ptr<LayerCache> make_cache() const = 0;
  // A batch of tokens, each piece following those in its cache, which are caches of this kind. x: [n, hidden], normalised; out:
  // [n, hidden]. A cache is extended by at most kQueryTile tokens at a time, which bounds all intermediates whatever the context.
  virtual void run(const LayerContext& context, const Rows& x, std::span<const Piece> pieces, float* out) const = 0;
};

// What a pass asks of a mixer at a time.
struct MixerLoad {
  int64_t batch = 0;      // tokens that run together
  int64_t longest = 0;    // tokens of the longest sequence
  bool observed = false;  // an observer is told about the inputs
};

struct MixerKind {
  AttentionKind kind;
  std::unique_ptr<Mixer> (*make)();
  // Floats of the intermediates and of the open caches; of one thread beside that, for a tile of queries.
  int64_t (*batch_floats)(const Hparams& hparams, const LayerParams& layer, const MixerLoad& load);
  int64_t (*thread_floats)(const Hparams& hparams, const LayerParams& layer, const MixerLoad& load);
  // Weights whose names end so are counted as floats in the memory of a layer, the others as stored; empty: none.
  std::string_view float_suffix = {};
};

}  // namespace quern
