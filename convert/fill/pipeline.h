#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "convert/plan/calibration.h"
#include "convert/plan/chunks.h"
#include "convert/plan/plan.h"
#include "formats/base/exact_sum.h"
#include "formats/base/progress.h"
#include "formats/model/model_source.h"

namespace quern {

// The engine: chunks of rows flow through read -> decode -> encode for every output -> compare -> write.
//
// Reading to comparing is one parallel step per chunk; after it each output has its own two serial steps in chunk order, one that
// writes and one that hashes, so that different outputs and different chunks overlap while every file sees its bytes in order.
// The number of chunks in the pipeline is what bounds the memory (chunks_in_flight); their buffers are made once and reused.
// A tensor's distinct types are encoded once each, however many outputs want them, and what was encoded is decoded again and
// compared with the source: that gives the squared error and, for lossless outputs, the proof.

// How near to the source a tensor is in one output.
struct Figure {
  double squared_error = 0;  // sum over all weights
  bool exact = true;         // every weight has the bits of the source's
};

struct Figures {
  double energy = 0;  // sum of the squared weights of the source
  std::vector<Figure> outputs;
};

// Of a tensor and, when it is stacked, of each of its slices.
struct TensorFigures : Figures {
  std::vector<Figures> slices;  // empty unless stacked; those without outputs lie outside the range of chunks
};

// What figures belong to: a slice of a tensor, or all of it.
struct Unit {
  static constexpr int64_t kWhole = -1;
  size_t tensor = 0;
  int64_t slice = kWhole;
  auto operator<=>(const Unit&) const = default;
};

// The same before rounding, for a unit of which only some chunks were seen.
struct PartialFigures {
  ExactSum energy;
  std::vector<ExactSum> squared_errors;  // per output
  std::vector<bool> exact;

  explicit PartialFigures(size_t n_outputs = 0) : squared_errors(n_outputs), exact(n_outputs, true) {}
  void add(const PartialFigures& other);
  Figures rounded() const;
};

struct PipelineResult {
  std::vector<TensorFigures> figures;      // per planned tensor; those outside the range of chunks stay empty
  std::map<Unit, PartialFigures> partial;  // tensors and slices that begin or end outside the range
  std::vector<double> encode_seconds;      // per output, processor time summed over threads
  std::vector<FeedbackLog::Outcome> feedback;
};

// Receives the bytes of each output. For one output the calls of a method come in chunk order and never at the same time; those of
// write and hash, and those for different outputs, may overlap.
//
// A sink may ask for marks, points at which the run could be taken up again: mark() is called for each output when it has been given the
// chunk, and record() once all outputs have been and the figures of the chunk are known.
class ChunkSink {
 public:
  virtual ~ChunkSink() = default;
  virtual void write(size_t output, int64_t chunk, std::span<const std::byte> bytes) = 0;
  virtual void hash(size_t output, std::span<const std::byte> bytes) = 0;

  // Whether there is to be a mark behind this chunk. Asked in chunk order, before the work on it begins.
  virtual bool wants_mark(int64_t /*chunk*/) { return false; }
  virtual void mark(size_t /*output*/) {}
  virtual void record(int64_t /*n_chunks*/, const PipelineResult& /*so_far*/) {}
};

// Puts the figures of a unit where they belong in its tensor's.
void set_figures(const PlannedTensor& tensor, Unit unit, Figures figures, TensorFigures& all);

// before: what came of the chunks [0, range.first) in an earlier run, figures alone; without it what begins there stays partial.
// Errors: weights that are not finite (kFormat, naming every such tensor, after all chunks were looked at), a lossless output that
// differs from the source (kGate), an interrupt.
PipelineResult run_chunks(const ModelSource& source, const Plan& plan, const Calibration& calibration, const Chunks& chunks,
                          Chunks::Range range, ChunkSink& sink, Progress& progress, std::optional<PipelineResult> before = {});

}  // namespace quern
