#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convert/fill/figures.h"
#include "convert/plan/chunks.h"
#include "convert/plan/plan.h"
#include "formats/base/error.h"

namespace quern {

// What is safely on disk of a run that has not ended: JSON lines in "FILE.part.journal" beside the first part file (described in
// docs/formats/plan.md). The first line says what is being made of what; each further one is a record: up to which row every output is
// written, how long that makes its files and what their SHA-256 is, and the figures of the tensors so far.
//
// A record is appended only after the data it speaks of was synced, so that whatever a crash leaves, every line that can be read is true
// as far as the disk keeps its word. That is not taken on trust: who goes on from a record reads the data again and compares the sums.

// What already is in its place of a plane that comes later in the file: its first bytes and their SHA-256.
struct PlaneMark {
  uint64_t file_offset = 0;
  uint64_t size_bytes = 0;
  std::string sha256;
};

// The first bytes of a file and their SHA-256. When they end inside a tensor of several planes, they end in its first one.
struct FileMark {
  uint64_t size_bytes = 0;
  std::string sha256;
  std::vector<PlaneMark> planes = {};  // of that tensor, those behind the first
};
using OutputMarks = std::map<size_t, FileMark>;  // by number of the file

// What an earlier run of a plan left.
struct BegunRun {
  int64_t n_chunks = 0;              // done, for all outputs
  std::vector<OutputMarks> outputs;  // the files that were begun
  PipelineResult figures;            // of these chunks
  uint64_t journal_bytes = 0;        // with the record that says so
};

struct JournalReading {
  std::optional<BegunRun> begun;  // empty: nothing that this plan could go on from
  std::string difference;         // why not, when there is work of another plan: "the source file 'a.safetensors' differs"
};

// A line that is not whole ends the reading: a crash may leave one at the end. Records whose rows are not where chunks of this plan begin
// (another memory budget) are passed over.
JournalReading read_journal(const Plan& plan, std::string_view text);
JournalReading read_journal(const Plan& plan);  // of journal_path(plan); empty when there is none

std::filesystem::path journal_path(const Plan& plan);
// Its first line: what the plan makes, and of what.
std::string journal_header(const Plan& plan);

// Bytes of the plan's outputs that earlier runs have written.
uint64_t begun_bytes(const Plan& plan);

// Work of another plan is in the way and may not be replaced.
Error difference_error(const Plan& plan, const std::string& difference);

// The journal of a run, locked against other processes. Removed with the object unless it is to be kept.
class Journal {
 public:
  explicit Journal(const Plan& plan);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  void begin_anew();
  void go_on(const BegunRun& begun);

  bool has_records() const noexcept { return n_records_ > 0; }
  // Every output is written up to this chunk, and synced. files: of each output, those that changed since the record before.
  void record(const Chunks& chunks, int64_t n_chunks, const std::vector<OutputMarks>& files, const PipelineResult& so_far);
  void sync();
  void keep(bool keep) noexcept { keep_ = keep; }

 private:
  void append(const std::string& line);

  const Plan& plan_;
  std::filesystem::path path_;
  int fd_ = -1;
  bool keep_ = false;
  int64_t n_records_ = 0;
  size_t next_tensor_ = 0;  // the first one whose figures are not all recorded
};

}  // namespace quern
