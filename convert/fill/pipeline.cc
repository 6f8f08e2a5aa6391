#include "convert/fill/pipeline.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include <tbb/parallel_pipeline.h>

#include "convert/fill/compare.h"
#include "convert/plan/memory.h"
#include "formats/base/error.h"
#include "formats/base/hand_over.h"
#include "formats/base/parallel.h"
#include "quantize/tensor_encoder.h"

// Two things bound a run: memory and the order of bytes. Memory is bounded by the number of chunks in work: there are so many sets of
// buffers, each made once for the largest chunk of the plan, and a chunk begins when a set is free. The order of bytes is kept by steps
// that take chunks one after the other. Only what needs that order is in such a step: writing and hashing, for each output apart, and
// adding up figures. Everything that costs time, reading, decoding, encoding and comparing, is one step that any number of threads are in.
// It is one step and not four, because the floats of a chunk are then still in a cache near the core that made them.
//
// Weights that are not finite do not end the run at once, since the next tensor may have them too and a user wants to know all. The chunk
// is skipped, and from then on nothing is encoded or written any more: the rest of the model is only looked through.
//
// hand_over() and take_over() say where one thread leaves data to another. TBB orders these steps already, but in a way that
// ThreadSanitizer cannot see.

namespace quern {
namespace {

// Processor time of the calling thread: unlike the clock on the wall it does not count other programs.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The distinct types of a tensor over all outputs, and which output uses which.
struct TypeSet {
  std::vector<DType> types;
  std::vector<bool> copied;
  std::vector<size_t> of_output;
};

TypeSet distinct_types(const Plan& plan, size_t tensor) {
  TypeSet set;
  for (const PlannedOutput& output : plan.outputs) {
    const Placement& placement = output.tensors[tensor];
    const auto found = std::find(set.types.begin(), set.types.end(), placement.type);
    set.of_output.push_back(static_cast<size_t>(found - set.types.begin()));
    if (found != set.types.end()) continue;
    set.types.push_back(placement.type);
    set.copied.push_back(placement.copied);
  }
  return set;
}

// The rows of a chunk that lie in one slice of its tensor; all of them when it is not stacked.
struct Piece {
  int64_t slice = 0;
  int64_t first_row = 0;  // from the chunk's first
  int64_t n_rows = 0;
  PartialFigures figures;
};

std::vector<Piece> pieces_of(const PlannedTensor& tensor, const Chunk& chunk, size_t n_outputs) {
  const int64_t slice_rows = tensor.shape.n_rows() / tensor.n_slices, end = chunk.first_row + chunk.n_rows;
  std::vector<Piece> pieces;
  for (int64_t row = chunk.first_row; row < end;) {
    const int64_t slice = row / slice_rows, n_rows = std::min(end, (slice + 1) * slice_rows) - row;
    pieces.push_back({slice, row - chunk.first_row, n_rows, PartialFigures(n_outputs)});
    row += n_rows;
  }
  return pieces;
}

// One chunk on its way, with its buffers.
struct Work {
  int64_t index = 0;
  Chunk chunk;
  TypeSet types;
  std::shared_ptr<const void> statistics;  // of its tensor, kept alive while it is in work
  RawRows raw;
  std::vector<float> weights;
  std::vector<std::vector<std::byte>> encoded;  // per distinct type
  std::vector<double> seconds;                  // per distinct type
  std::vector<Piece> pieces;
  bool skipped = false;
  bool marked = false;
};

// Tensors whose weights are not finite. Once there is one, the rest of the model is only looked through.
class BadTensors {
 public:
  bool any() const noexcept { return any_.load(std::memory_order_relaxed); }

  void add(size_t tensor, int64_t first_row, const std::string& message) {
    const std::lock_guard lock(mutex_);
    any_.store(true, std::memory_order_relaxed);
    const auto [found, inserted] = found_.try_emplace(tensor, first_row, message);
    if (!inserted && first_row < found->second.first) found->second = {first_row, message};
  }

  void throw_if_any(const Plan& plan) const {
    if (found_.empty()) return;
    constexpr size_t kShown = 20;
    std::string text;
    size_t shown = 0;
    for (const auto& [tensor, what] : found_) {
      if (++shown > kShown) break;
      text += (shown == 1 ? "" : "; ") + ("'" + plan.tensors[tensor].name + "': " + what.second);
    }
    if (found_.size() > kShown) text += "; and " + std::to_string(found_.size() - kShown) + " more tensors";
    const std::string count = found_.size() == 1 ? "a tensor has" : std::to_string(found_.size()) + " tensors have";
    throw Error(ErrorKind::kFormat, count + " weights that are not finite: " + text);
  }

 private:
  std::atomic<bool> any_{false};
  std::mutex mutex_;
  std::map<size_t, std::pair<int64_t, std::string>> found_;  // first row and what is wrong there
};

class Pipeline {
 public:
  Pipeline(const ModelSource& source, const Plan& plan, const Calibration& calibration, const Chunks& chunks, Chunks::Range range,
           ChunkSink& sink, Progress& progress, std::optional<PipelineResult> before)
      : source_(source),
        plan_(plan),
        encoder_(source, &calibration.importance, plan.effort, calibration.feedback.get(), &feedback_log_),
        feedback_(calibration.feedback.get()),
        chunks_(chunks),
        range_(range),
        first_known_(before ? 0 : range.first),
        sink_(sink),
        progress_(progress),
        next_(range.first) {
    if (before) result_ = std::move(*before);
    result_.figures.resize(plan.tensors.size());
    result_.encode_seconds.resize(plan.outputs.size());
    make_buffers(chunks_in_flight(plan, thread_limit()));
  }

  PipelineResult run() {
    using tbb::filter_mode;
    const auto serial = [](auto step) {
      return tbb::make_filter<Work*, Work*>(filter_mode::serial_in_order, [step, key = std::make_shared<char>()](Work* work) {
        take_over(work);
        take_over(key.get());  // from the chunk before
        step(*work);
        hand_over(key.get());
        hand_over(work);
        return work;
      });
    };
    tbb::filter<void, Work*> flow =
        tbb::make_filter<void, Work*>(filter_mode::serial_in_order, [this](tbb::flow_control& fc) { return next(fc); }) &
        tbb::make_filter<Work*, Work*>(filter_mode::parallel, [this](Work* work) { return process(work); });
    for (size_t output = 0; output < plan_.outputs.size(); ++output) {
      flow = flow & serial([this, output](Work& work) {
               if (!writable(work)) return;
               sink_.write(output, work.index, bytes_of(work, output));
               if (work.marked) sink_.mark(output);
             });
      flow = flow & serial([this, output](Work& work) {
               if (writable(work)) sink_.hash(output, bytes_of(work, output));
             });
    }
    const tbb::filter<void, void> whole =
        flow & tbb::make_filter<Work*, void>(filter_mode::serial_in_order, [this](Work* work) { finish(work); });
    hand_over(&next_);
    tbb::parallel_pipeline(all_.size(), whole);
    take_over(&next_);
    take_over(&result_);
    bad_.throw_if_any(plan_);
    result_.feedback = feedback_log_.outcomes();
    return std::move(result_);
  }

 private:
  // Capacity for the largest chunk, so that no buffer ever moves; pages are taken when they are first used.
  void make_buffers(int n) {
    uint64_t raw = 0;
    size_t weights = 0;
    std::vector<uint64_t> encoded;
    for (size_t t = 0; t < plan_.tensors.size(); ++t) {
      const PlannedTensor& tensor = plan_.tensors[t];
      const int64_t rows = std::min(tensor.chunk_rows, tensor.shape.n_rows());
      raw = std::max(raw, source_.raw_bytes(tensor.source_index, rows));
      if (!tensor.integer) weights = std::max(weights, static_cast<size_t>(rows * tensor.shape.row_length()));
      const TypeSet set = distinct_types(plan_, t);
      encoded.resize(std::max(encoded.size(), set.types.size()));
      for (size_t k = 0; k < set.types.size(); ++k) {
        encoded[k] = std::max(encoded[k], static_cast<uint64_t>(rows) * row_size_bytes(set.types[k], tensor.shape.row_length()));
      }
    }
    for (int i = 0; i < n; ++i) {
      auto work = std::make_unique<Work>();
      work->raw.bytes.reserve(static_cast<size_t>(raw));
      work->weights.reserve(weights);
      work->encoded.resize(encoded.size());
      for (size_t k = 0; k < encoded.size(); ++k) work->encoded[k].reserve(static_cast<size_t>(encoded[k]));
      free_.push_back(work.get());
      all_.push_back(std::move(work));
    }
  }

  Work* next(tbb::flow_control& flow) {
    throw_if_interrupted();
    take_over(&next_);
    if (next_ == range_.last) {
      flow.stop();
      hand_over(&next_);
      return nullptr;
    }
    const Chunk chunk = chunks_[next_];
    std::shared_ptr<const void> statistics;
    if (feedback_ != nullptr) statistics = feedback_->prepare(plan_.tensors[chunk.tensor].source_index);
    const std::lock_guard lock(free_mutex_);
    Work* work = free_.back();  // as many as the pipeline has tokens
    free_.pop_back();
    work->index = next_++;
    work->marked = sink_.wants_mark(work->index);
    if (work->types.types.empty() || chunk.tensor != work->chunk.tensor) work->types = distinct_types(plan_, chunk.tensor);
    work->chunk = chunk;
    work->statistics = std::move(statistics);
    hand_over(&next_);
    hand_over(work);
    return work;
  }

  Work* process(Work* work) {
    take_over(work);
    const PlannedTensor& tensor = plan_.tensors[work->chunk.tensor];
    work->pieces = pieces_of(tensor, work->chunk, plan_.outputs.size());
    work->seconds.assign(work->types.types.size(), 0);
    try {
      source_.fetch(tensor.source_index, work->chunk.first_row, work->chunk.n_rows, work->raw);
      const bool finite = tensor.integer || decode(*work);
      work->skipped = !finite || bad_.any();
      if (!work->skipped) encode(*work);
    } catch (Error& error) {
      error.tensor(tensor.name);
      throw;
    }
    hand_over(work);
    return work;
  }

  // False when the chunk has weights that are not finite.
  bool decode(Work& work) {
    const PlannedTensor& tensor = plan_.tensors[work.chunk.tensor];
    work.weights.resize(static_cast<size_t>(work.chunk.n_rows * tensor.shape.row_length()));
    try {
      source_.decode(work.raw, work.weights);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFormat) throw;
      bad_.add(work.chunk.tensor, work.chunk.first_row, error.message());
      return false;
    }
    for (Piece& piece : work.pieces) {
      const int64_t row = add_energy(weights_of(work, piece), tensor.shape.row_length(), piece.figures.energy);
      if (row < 0) continue;
      const int64_t bad_row = work.chunk.first_row + piece.first_row + row;
      bad_.add(work.chunk.tensor, work.chunk.first_row, "NaN or infinity in row " + std::to_string(bad_row));
      return false;
    }
    return true;
  }

  void encode(Work& work) {
    const PlannedTensor& tensor = plan_.tensors[work.chunk.tensor];
    const int64_t row_length = tensor.shape.row_length();
    for (size_t k = 0; k < work.types.types.size(); ++k) {
      const double start = thread_seconds();
      const DType type = work.types.types[k];
      std::vector<std::byte>& out = work.encoded[k];
      out.resize(static_cast<size_t>(static_cast<uint64_t>(work.chunk.n_rows) * row_size_bytes(type, row_length)));
      if (work.types.copied[k]) {
        source_.copy(work.raw, type, out);
      } else {
        encoder_.encode(tensor.source_index, type, work.chunk.first_row, work.chunk.n_rows, work.weights, out);
      }
      work.seconds[k] = thread_seconds() - start;
      if (!tensor.integer) compare(work, k);
    }
  }

  std::span<const float> weights_of(const Work& work, const Piece& piece) const {
    const int64_t row_length = plan_.tensors[work.chunk.tensor].shape.row_length();
    return std::span(work.weights)
        .subspan(static_cast<size_t>(piece.first_row * row_length), static_cast<size_t>(piece.n_rows * row_length));
  }

  void compare(Work& work, size_t k) {
    const bool as_stored = is_as_stored(work, k);
    for (Piece& piece : work.pieces) compare(work, k, as_stored, piece);
  }

  // The source's bytes in the source's type: nothing to compare.
  bool is_as_stored(const Work& work, size_t k) const {
    const LogicalTensor& stored = source_.tensors()[plan_.tensors[work.chunk.tensor].source_index];
    return work.types.copied[k] && work.types.types[k] == stored.source_type && std::ranges::equal(work.encoded[k], work.raw.bytes);
  }

  void compare(const Work& work, size_t k, bool as_stored, Piece& piece) {
    const DType type = work.types.types[k];
    const int64_t row_length = plan_.tensors[work.chunk.tensor].shape.row_length();
    const uint64_t row_bytes = row_size_bytes(type, row_length);
    const auto blocks = std::span(work.encoded[k])
                            .subspan(static_cast<size_t>(static_cast<uint64_t>(piece.first_row) * row_bytes),
                                     static_cast<size_t>(static_cast<uint64_t>(piece.n_rows) * row_bytes));
    const Comparison found = as_stored ? Comparison{} : compare_encoded(type, blocks, weights_of(work, piece), row_length);
    if (found.nonfinite_row >= 0) {
      const int64_t row = work.chunk.first_row + piece.first_row + found.nonfinite_row;
      throw Error(ErrorKind::kInternal, "row " + std::to_string(row) + " decodes to infinity or NaN as " + std::string(name_of(type)));
    }
    for (size_t output = 0; output < plan_.outputs.size(); ++output) {
      if (work.types.of_output[output] != k) continue;
      piece.figures.squared_errors[output] = found.squared_error;
      piece.figures.exact[output] = found.exact;
      piece.figures.cuts[output] = found.cut;
      if (plan_.outputs[output].lossless && !found.exact) {
        throw Error(ErrorKind::kGate, "is not exact as " + std::string(name_of(type)) + "; the lossless output was given up");
      }
    }
  }

  // A chunk that was skipped leaves a gap in the stream; nothing after it may be written. Whoever skips sets the flag first.
  bool writable(const Work& work) const { return !work.skipped && !bad_.any(); }

  std::span<const std::byte> bytes_of(const Work& work, size_t output) const { return work.encoded[work.types.of_output[output]]; }

  // The last step, in chunk order: figures, progress, and the buffers back to the pool.
  void finish(Work* work) {
    take_over(work);
    take_over(&result_);  // from the chunk before
    const PlannedTensor& tensor = plan_.tensors[work->chunk.tensor];
    for (const Piece& piece : work->pieces) {
      add_figures(*work, {work->chunk.tensor, Unit::kWhole}, 0, tensor.shape.n_rows(), piece);
      const int64_t slice_rows = tensor.shape.n_rows() / tensor.n_slices;
      if (tensor.n_slices > 1) add_figures(*work, {work->chunk.tensor, piece.slice}, piece.slice * slice_rows, slice_rows, piece);
    }
    for (size_t output = 0; output < plan_.outputs.size(); ++output) {
      result_.encode_seconds[output] += work->seconds[work->types.of_output[output]];
    }
    if (work->marked && writable(*work)) sink_.record(work->index + 1, result_);
    progress_.advance(chunks_.source_bytes(work->chunk));
    work->statistics.reset();
    {
      const std::lock_guard lock(free_mutex_);
      free_.push_back(work);
    }
    hand_over(&result_);
  }

  // Adds those of a piece to a unit that has the rows [first_row, first_row + n_rows) of its tensor.
  void add_figures(const Work& work, Unit unit, int64_t first_row, int64_t n_rows, const Piece& piece) {
    PartialFigures& sum = result_.partial.try_emplace(unit, plan_.outputs.size()).first->second;
    sum.add(piece.figures);
    const PlannedTensor& tensor = plan_.tensors[unit.tensor];
    const int64_t first_chunk = work.index - work.chunk.first_row / tensor.chunk_rows + first_row / tensor.chunk_rows;
    const bool ends = work.chunk.first_row + piece.first_row + piece.n_rows == first_row + n_rows;
    if (!ends || first_chunk < first_known_) return;
    set_figures(tensor, unit, sum.rounded(), result_.figures[unit.tensor]);
    result_.partial.erase(unit);
  }

  const ModelSource& source_;
  const Plan& plan_;
  FeedbackLog feedback_log_;
  const TensorEncoder encoder_;
  FeedbackEncoder* feedback_;  // nullptr: none
  const Chunks& chunks_;
  const Chunks::Range range_;
  const int64_t first_known_;  // chunk from which on figures are known
  ChunkSink& sink_;
  Progress& progress_;
  int64_t next_;
  BadTensors bad_;
  PipelineResult result_;
  std::vector<std::unique_ptr<Work>> all_;
  std::mutex free_mutex_;
  std::vector<Work*> free_;
};

}  // namespace

PipelineResult run_chunks(const ModelSource& source, const Plan& plan, const Calibration& calibration, const Chunks& chunks,
                          Chunks::Range range, ChunkSink& sink, Progress& progress, std::optional<PipelineResult> before) {
  return Pipeline(source, plan, calibration, chunks, range, sink, progress, std::move(before)).run();
}

}  // namespace quern
