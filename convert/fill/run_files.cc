#include "convert/fill/run_files.h"

#include <algorithm>

#include "formats/base/parallel.h"

// A run begins by asking what is there already: the journal's last record that fits the plan and the files that it speaks of, read again
// and compared with their sums. Everything that is kept or removed at the end hangs on one rule. A record in the journal is worth keeping
// when the machine or the user ended the run, and worth nothing when the input did, because the next attempt would fail in the same place.
// The journal holds a lock for as long as the run lasts, so a second run of the same output never sees half a file of the first.

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kMarkEvery{10};

// Whether a file that the journal speaks of was removed, under either of its names. Then the others are of no use.
bool file_is_gone(const Plan& plan, const BegunRun& begun) {
  for (size_t output = 0; output < plan.outputs.size(); ++output) {
    for (const auto& [file, mark] : begun.outputs[output]) {
      const fs::path path = plan.folder / relative_name(plan.outputs[output], file);
      const bool may_be_renamed = mark.size_bytes == plan.outputs[output].files[file].size_bytes;
      if (!fs::exists(part_path(path)) && !(may_be_renamed && fs::exists(path))) return true;
    }
  }
  return false;
}

}  // namespace

RunFiles::RunFiles(const Plan& plan, const Chunks& chunks, Progress& progress) : plan_(plan), chunks_(chunks), journal_(plan) {
  journal_.keep(true);  // it may be of a run that can be gone on with
  JournalReading found = read_journal(plan);
  if (!found.difference.empty() && !plan.force) throw difference_error(plan, found.difference);
  if (!found.begun || file_is_gone(plan, *found.begun)) {
    begin();
    return;
  }
  try {
    go_on(*found.begun, progress);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kFormat || !plan.force) throw;
    keep(false);
    writers_.clear();
    hashers_.clear();
    begin();
  }
}

void RunFiles::begin() {
  journal_.keep(false);
  journal_.begin_anew();
  for (size_t output = 0; output < plan_.outputs.size(); ++output) {
    writers_.push_back(std::make_unique<OutputWriter>(plan_, output));
    hashers_.push_back(std::make_unique<TensorHasher>(plan_, output));
  }
}

void RunFiles::go_on(BegunRun& begun, Progress& progress) {
  const size_t n_outputs = plan_.outputs.size();
  uint64_t bytes = 0;
  for (const OutputMarks& marks : begun.outputs) {
    for (const auto& [file, mark] : marks) bytes += mark.size_bytes;
  }
  writers_.resize(n_outputs);
  hashers_.resize(n_outputs);
  progress.begin("checking what was written", bytes);
  parallel_for(static_cast<int64_t>(n_outputs), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const size_t output = static_cast<size_t>(i);
      hashers_[output] = std::make_unique<TensorHasher>(plan_, output);
      writers_[output] = std::make_unique<OutputWriter>(plan_, output, begun.outputs[output], *hashers_[output], progress);
      if (writers_[output]->tensor_bytes() != chunks_.data_position(output, begun.n_chunks)) {
        throw Error(ErrorKind::kFormat, "its journal does not fit what was written; --force begins again")
            .file(part_path(plan_.folder / relative_name(plan_.outputs[output], 0)).string());
      }
    }
  });
  progress.end();
  journal_.go_on(begun);
  n_done_ = begun.n_chunks;
  figures_done_ = std::move(begun.figures);
}

void RunFiles::write(size_t output, int64_t, std::span<const std::byte> bytes) { writers_[output]->append(bytes); }

void RunFiles::hash(size_t output, std::span<const std::byte> bytes) { hashers_[output]->append(bytes); }

bool RunFiles::wants_mark(int64_t chunk) {
  const auto now = std::chrono::steady_clock::now();
  for (size_t output = 0; output < plan_.outputs.size(); ++output) bytes_since_mark_ += chunks_.output_bytes(output, chunks_[chunk]);
  if (bytes_since_mark_ < plan_.sync_bytes && now - last_mark_ < kMarkEvery) return false;
  bytes_since_mark_ = 0;
  last_mark_ = now;
  return chunk + 1 < chunks_.count();  // finish() makes the last record
}

void RunFiles::mark(size_t output) { writers_[output]->mark(); }

void RunFiles::record(int64_t n_chunks, const PipelineResult& so_far) {
  std::vector<OutputMarks> marks;
  for (const std::unique_ptr<OutputWriter>& writer : writers_) marks.push_back(writer->take_mark());
  journal_.record(chunks_, n_chunks, marks, so_far);
}

std::vector<FinishedOutput> RunFiles::finish(const PipelineResult& result) {
  std::vector<FinishedOutput> finished;
  for (size_t output = 0; output < writers_.size(); ++output) {
    writers_[output]->mark();
    finished.push_back({writers_[output]->finish(), hashers_[output]->finish()});
  }
  if (n_done_ < chunks_.count()) record(chunks_.count(), result);
  journal_.sync();
  return finished;
}

void RunFiles::keep(bool keep) {
  keep = keep && journal_.has_records();
  journal_.keep(keep);
  for (const std::unique_ptr<OutputWriter>& writer : writers_) {
    if (writer) writer->keep(keep);
  }
}

}  // namespace quern
