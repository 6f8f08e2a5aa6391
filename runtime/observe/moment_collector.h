#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "formats/statistics/statistics.h"
#include "runtime/math/activation_observer.h"
#include "runtime/observe/moment_sums.h"

namespace quern {

// Collects second moments for error feedback and writes them block by block. Dense inputs of a block are in memory together, and of
// routed experts the one that runs and the sum over all: experts come one after the other, and each is written when the next begins.
// The moments of a weight with slices are followed by those of all slices together, under kWholeWeight, for slices that saw little.
class MomentCollector final : public ActivationObserver {
 public:
  // In sequential mode: what the original has in place of the rows of this call.
  using OriginalRows = std::function<PackedRows(const ObservedInput&)>;

  // Inputs of which no weight is wanted are left alone (tensors that are never quantized). original: empty but in sequential mode.
  MomentCollector(StatisticsWriter& writer, std::function<bool(std::string_view)> wanted, OriginalRows original = {});

  void observe(const ObservedInput& input) override;
  // Writes what is still open: the inputs of the last block. They are complete.
  std::vector<StatisticsWriter::Finished> finish();

 private:
  struct Open {
    std::vector<std::string> weights;
    bool sliced = false;
    std::map<int64_t, MomentSums> slices;
    MomentSums all;
  };

  void write_slice(Open& open, int64_t slice);

  StatisticsWriter& writer_;
  std::function<bool(std::string_view)> wanted_;
  OriginalRows original_;
  int64_t block_ = -1;  // of the open sums; -1: of weights outside blocks
  std::map<std::string, Open, std::less<>> open_;
};

}  // namespace quern
