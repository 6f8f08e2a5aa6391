#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "convert/fill/figures.h"
#include "convert/plan/calibration.h"
#include "convert/plan/chunks.h"
#include "convert/plan/plan.h"
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

// before: what came of the chunks [0, range.first) in an earlier run, figures alone; without it what begins there stays partial.
// Errors: weights that are not finite (kFormat, naming every such tensor, after all chunks were looked at), a lossless output that
// differs from the source (kGate), an interrupt.
PipelineResult run_chunks(const ModelSource& source, const Plan& plan, const Calibration& calibration, const Chunks& chunks,
                          Chunks::Range range, ChunkSink& sink, Progress& progress, std::optional<PipelineResult> before = {});

}  // namespace quern
