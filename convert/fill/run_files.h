#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "convert/fill/journal.h"
#include "convert/fill/output_writer.h"
#include "convert/fill/pipeline.h"
#include "convert/plan/chunks.h"

namespace quern {

// The files of a run: every output to its own, with a journal from which a later run of the same plan goes on.
//
// What has been written is recorded every Plan::sync_bytes, and every ten seconds for encoders that take longer. A run that ends by a
// kill, an interrupt or a fault of the machine leaves part files and journal, when there is any record; one that ends because of its
// input removes them. When everything is written and synced a last record says so before the first file gets its name: a run that ended
// while names were given is finished by the next one.
class RunFiles final : public ChunkSink {
 public:
  // Reads again what an earlier run left, if it can be gone on from. Throws kUsage when what is there is of another plan and kFormat when
  // it is damaged; with Plan::force it is dropped instead.
  RunFiles(const Plan& plan, const Chunks& chunks, Progress& progress);

  int64_t n_chunks_done() const noexcept { return n_done_; }  // by earlier runs
  // The figures of these chunks.
  PipelineResult take_figures_done() { return std::move(figures_done_); }

  void write(size_t output, int64_t chunk, std::span<const std::byte> bytes) override;
  void hash(size_t output, std::span<const std::byte> bytes) override;
  bool wants_mark(int64_t chunk) override;
  void mark(size_t output) override;
  void record(int64_t n_chunks, const PipelineResult& so_far) override;

  // Runs a step of the work; decides what becomes of the files when it throws.
  template <typename Step>
  auto guarded(Step&& step) {
    try {
      return step();
    } catch (const Error& error) {
      keep(error.kind() == ErrorKind::kIo || error.kind() == ErrorKind::kInterrupted);
      throw;
    } catch (const std::exception&) {  // memory ran out
      keep(true);
      throw;
    }
  }
  // What is left is of no use.
  void drop() { keep(false); }

  // After the last byte.
  std::vector<FinishedOutput> finish(const PipelineResult& result);
  std::vector<std::unique_ptr<OutputWriter>>& writers() noexcept { return writers_; }
  // The run is complete; its journal may outlive it (AtEnd).
  void end(bool keep_journal) { journal_.keep(keep_journal); }

 private:
  void begin();
  void go_on(BegunRun& begun, Progress& progress);
  void keep(bool keep);

  const Plan& plan_;
  const Chunks& chunks_;
  Journal journal_;  // its lock is taken first and released last
  std::vector<std::unique_ptr<OutputWriter>> writers_;
  std::vector<std::unique_ptr<TensorHasher>> hashers_;
  int64_t n_done_ = 0;
  PipelineResult figures_done_;
  uint64_t bytes_since_mark_ = 0;
  std::chrono::steady_clock::time_point last_mark_ = std::chrono::steady_clock::now();
};

}  // namespace quern
