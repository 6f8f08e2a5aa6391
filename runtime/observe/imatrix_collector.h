#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model/model_source.h"
#include "formats/statistics/imatrix.h"
#include "runtime/math/activation_observer.h"

namespace quern {

// Collects an importance matrix: per input column of every weight the sum of squares over the rows it multiplied, per expert for
// stacks, per head for attn_k_b and attn_v_b. attn_output_a gets two entries, the mean over its groups and ".groups" with one slice per
// group (docs/formats/imatrix.md). Sums are in double, rows in the order of the calls: the same bits for any number of threads.
class ImatrixCollector final : public ActivationObserver {
 public:
  // tensors: of the model that is run; they must outlive the collector.
  explicit ImatrixCollector(std::span<const LogicalTensor> tensors);

  void observe(const ObservedInput& input) override;

  // What the sums take at most.
  uint64_t memory_bytes() const;

  // Everything seen so far; the collector is empty afterwards. Names of texts, chunks and their size are the caller's to fill in.
  Imatrix take();

 private:
  // All weights that share an input have these. Sums become floats when their block is finished, so that doubles exist for one block.
  struct Sums {
    std::vector<std::string_view> weights;
    int64_t n_columns = 0;
    std::vector<std::vector<double>> slices;
    std::vector<int64_t> counts;
  };

  Sums& sums_of(const ObservedInput& input);
  int64_t stacked_slices(std::string_view weight) const;
  void close_block();
  void add_entries(const Sums& sums);

  std::map<std::string_view, const LogicalTensor*> tensors_;
  int64_t block_ = -1;                             // of the open sums; -1: of weights outside blocks
  std::map<std::string, Sums, std::less<>> open_;  // by the name of their first weight
  Imatrix imatrix_;
};

}  // namespace quern
