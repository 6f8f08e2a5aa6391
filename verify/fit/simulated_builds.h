#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quantize/simulated_source.h"
#include "runtime/pass/evaluator.h"
#include "runtime/pass/output_head.h"
#include "verify/drift/drift_statistics.h"

namespace quern {

// One type per tensor of a model: a build, as far as its drift is concerned.
using TypeAssignment = std::vector<DType>;

// Drift of many builds of one model that exist only as type assignments.
//
// All builds of a batch go through the layers together. Builds that agree in the embedding and in all layers so far share one set of
// states, and builds that agree in a layer share one read and one encoding of it; so a build that differs from the others in one layer
// costs only the layers from there on, and a pass reads every layer once for each variant of it. The results are those of
// measure_drift() on the written files, bit for bit, because sequences do not influence each other.
class SimulatedBuilds {
 public:
  // Runs the original over the chunks (of one length) and keeps its final states. Positions [first_scored, length - 1) of every chunk
  // are scored. original and encoder outlive the object; blocks are kept in `cache` for later calls.
  SimulatedBuilds(const ModelSource& original, const TensorEncoder& encoder, BlockCache& cache, const EvalOptions& options,
                  std::vector<Sequence> chunks, int64_t first_scored, Progress& progress);
  ~SimulatedBuilds();

  int64_t n_layers() const noexcept { return n_layers_; }
  // [build][token]: KL divergence from the original at the scored positions, chunk by chunk. Progress counts layers computed.
  std::vector<std::vector<double>> measure(std::span<const TypeAssignment> builds, Progress& progress);

  // Layers that measure(builds) computes, each over all chunks once, the output counted as one.
  int64_t cost(std::span<const TypeAssignment> builds) const;
  // Processor and wall time of the original's pass, divided by its layers and the output: what one unit of cost() takes.
  double seconds_per_layer() const noexcept { return seconds_per_layer_; }

 private:
  // Which of the model's parts a tensor belongs to.
  static constexpr int64_t kEmbedding = -1;
  struct Shared;  // builds that agree so far, and their states
  struct Tail;    // builds that agree in everything: final states and output matrix
  struct Original;

  std::vector<DType> part_types(const TypeAssignment& build, int64_t part) const;
  std::vector<std::vector<size_t>> split(std::span<const TypeAssignment> builds, const std::vector<size_t>& members, int64_t part) const;
  std::vector<Shared> embed(std::span<const TypeAssignment> builds) const;
  std::vector<Shared> run_layer(std::span<const TypeAssignment> builds, std::vector<Shared> states, int64_t layer, Progress& progress);
  std::vector<Tail> finish(std::span<const TypeAssignment> builds, std::vector<Shared> states) const;
  void score(std::vector<Tail>& tails, std::vector<std::vector<double>>& kl) const;
  void measure_batch(std::span<const TypeAssignment> builds, std::span<std::vector<double>> kl, Progress& progress);
  std::vector<float> scored_states(const Evaluator& evaluator, size_t first_sequence) const;

  const ModelSource& original_;
  const TensorEncoder& encoder_;
  BlockCache& cache_;
  EvalOptions options_;
  std::vector<Sequence> chunks_;
  int64_t first_scored_;
  int64_t n_layers_ = 0;
  int64_t batch_ = 1;                         // builds whose states fit the memory
  std::vector<std::vector<size_t>> of_part_;  // tensors of the embedding, the layers, the output
  std::unique_ptr<Tail> reference_;
  double seconds_per_layer_ = 0.0;
};

}  // namespace quern
