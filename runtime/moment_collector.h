#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "formats/statistics.h"
#include "runtime/activation_observer.h"

namespace quern {

// Collects second moments for error feedback and writes them block by block. Dense inputs of a block are in memory together, and of
// routed experts the one that runs and the sum over all: experts come one after the other, and each is written when the next begins.
//
// Rows are counted per slice; of every eight panels of 16 rows the last is held out of the moments, and at most kMostHeld of these rows
// are kept. Rows of routed experts are multiplied by the router's weight, which is what their outputs are multiplied by. The moments of
// a weight with slices are followed by those of all slices together, under kWholeWeight, for slices that saw little.
//
// Sums within a call are taken in float over 16 lanes and at most 256 rows, then in double, in a fixed order: the same bits for any
// number of threads.
class MomentCollector final : public ActivationObserver {
 public:
  static constexpr int64_t kMostHeld = 256;

  // Weights for which wanted() is false are left alone (tensors that are never quantized).
  MomentCollector(StatisticsWriter& writer, std::function<bool(std::string_view)> wanted);

  void observe(const ObservedInput& input) override;
  void finish();  // writes what is still open

 private:
  struct Sums {
    int64_t n_rows = 0;
    int64_t n_panels = 0;  // seen, held out or not
    double fourth = 0.0;
    std::vector<double> half;
    HeldRows held;
  };
  struct Open {
    std::vector<std::string> weights;
    int64_t n_columns = 0;
    bool sliced = false;
    std::map<int64_t, Sums> slices;
    Sums all;
  };

  void add(const ObservedInput& input, int64_t n_columns, Sums& sums);
  void write_slice(Open& open, int64_t slice);
  void close_block();

  StatisticsWriter& writer_;
  std::function<bool(std::string_view)> wanted_;
  std::string block_;
  std::map<std::string, Open, std::less<>> open_;
};

}  // namespace quern
