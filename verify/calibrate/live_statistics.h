#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "formats/statistics/statistics.h"
#include "quantize/simulated_source.h"
#include "runtime/pass/evaluator.h"

namespace quern {

// Statistics for error feedback that are collected as they are asked for: a model runs over a text layer by layer, up to the layer whose
// weights are to be encoded. So a build needs one command, and the numbers of one or two layers on disk instead of all
// (docs/error-feedback.md has sizes).
//
// In the original mode a layer is computed once, with the original's weights. In sequential mode two models go side by side, the original
// and the build as far as it is encoded. A layer is computed once by the original and once more by the build for each of its inputs, in
// their order: with the weights before that input encoded and those after it original. So every weight is chosen for the inputs that it
// will really have, errors of the same layer included. Inputs of the two are paired token by token; to this end tokens go to the experts
// that the original chose while statistics are taken, and to the build's own when its states are carried on to the next layer.
//
// Same text and model give the same numbers for any number of threads and any memory.
class LiveStatistics final : public StatisticsSource {
 public:
  struct Options {
    EvalOptions eval;
    std::vector<Sequence> chunks;
    std::filesystem::path folder;  // of the numbers; created
    OutputFile::Overwrite overwrite = OutputFile::Overwrite::kRefuse;
    // false: numbers are deleted when nobody holds them and the next layer is asked for, in models that list their tensors in the order of
    // their use; in the end in others.
    bool keep = false;
    ActivationObserver* also_observes = nullptr;  // the original's inputs
    Progress* progress = nullptr;                 // of layers; nullptr: none
  };

  // source outlives this. record: what the text is; its mode decides what is done.
  LiveStatistics(const ModelSource& source, Options options, StatisticsRecord record);
  ~LiveStatistics() override;

  // In sequential mode this comes before any question: the type of every tensor in the build, and how rows are encoded, which will in turn
  // ask here for statistics. The encoder outlives the questions.
  void follow(std::vector<DType> types, const TensorEncoder& encoder);

  const StatisticsRecord& record() const noexcept override { return record_; }
  std::shared_ptr<const StatisticsInput> find(std::string_view weight) override;

  // Says in `progress`, as a step of whatever else it shows, which layer is being run.
  void tell(Progress& progress) noexcept { steps_ = &progress; }

  void run_rest();  // what was not asked for
  // After run_rest(): writes the list that makes the folder one for Statistics.
  void finish();
  uint64_t bytes_read() const noexcept { return source_.bytes_read(); }

 private:
  struct Layer;    // what the original's pass of one layer leaves: inputs and routing
  class Original;  // observer of the original's pass

  int64_t layer_of(std::string_view weight) const;
  bool wanted(std::string_view weight) const;
  bool has_feedback(std::string_view weight) const;
  std::optional<std::shared_ptr<const StatisticsInput>> known(std::string_view weight, int64_t layer);
  void begin();
  void collect_layer();
  void collect_in_sequence(Layer& layer);
  void collect_input(const Layer& layer, size_t number);
  void run_original(const RoutingObserver& routing);
  void run_build(ActivationObserver* observer, const RoutingObserver& route, bool keep_states);
  void add_finished(std::vector<StatisticsWriter::Finished> finished);
  void forget_layer(int64_t layer);

  const ModelSource& source_;
  Options options_;
  StatisticsRecord record_;
  const bool sequential_;
  bool forgets_ = false;
  Progress* steps_ = nullptr;
  std::unique_ptr<Original> observer_;
  std::unique_ptr<Evaluator> original_;
  std::unique_ptr<StatisticsWriter> writer_;  // once the models run
  int64_t n_layers_ = 0;                      // the output matrix comes after them

  std::vector<DType> types_;  // sequential mode
  const TensorEncoder* encoder_ = nullptr;
  TokenStore build_states_;
  uint64_t cache_bytes_ = 0;
  std::unique_ptr<BlockCache> cache_;  // of the layer at hand
  std::vector<bool> encoded_;          // tensors that the build has encoded so far

  std::mutex work_mutex_;  // held while the models run
  int64_t next_layer_ = 0;
  std::mutex known_mutex_;
  int64_t n_complete_ = 0;   // layers of which all inputs are known
  int64_t n_forgotten_ = 0;  // of these the first are gone
  std::map<std::string, std::shared_ptr<const StatisticsInput>, std::less<>> by_weight_;
};

}  // namespace quern
