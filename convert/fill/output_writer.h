#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "convert/fill/journal.h"
#include "convert/fill/sums.h"
#include "convert/fill/tensor_stream.h"
#include "convert/plan/plan.h"
#include "convert/record/build_record.h"
#include "formats/base/file.h"
#include "formats/base/progress.h"
#include "formats/base/sha256.h"

namespace quern {

// Computes FileSums from bytes as they come.
class FileHasher {
 public:
  void update(std::span<const std::byte> bytes);
  // Of what was given so far.
  std::string sha256() const { return file_hash_.current_hex(); }
  // The object starts anew afterwards.
  FileSums finish();

 private:
  void update_pieces(std::span<const std::byte> bytes);

  Sha256 file_hash_, piece_hash_;
  uint64_t piece_bytes_ = 0;  // in piece_hash_
  std::vector<std::string> pieces_;
};

// Computes TensorSums from the stream that the writer gets. Separate from the writer so that both can work at the same time. Not
// thread-safe.
class TensorHasher {
 public:
  TensorHasher(const Plan& plan, size_t output);

  void append(std::span<const std::byte> bytes);
  std::vector<TensorSums> finish();

 private:
  const Plan& plan_;
  TensorStream stream_;
  Sha256 tensor_hash_, slice_hash_;
  std::vector<TensorSums> sums_;
};

// Writes the files of one output from the stream of its tensor data: headers first, padding between, SHA-256 of every file from the
// bytes written. Nothing has its final name before commit(); without it everything is removed that is not to be kept. Not thread-safe, but
// take_mark() may be called beside everything else.
class OutputWriter {
 public:
  OutputWriter(const Plan& plan, size_t output);
  // Goes on where the marks end: what they cover is read again and compared with their sums, and its tensor data is given to `hasher`.
  // Files are kept until keep(false). Throws kFormat when they do not hold what the marks say.
  OutputWriter(const Plan& plan, size_t output, const OutputMarks& marks, TensorHasher& hasher, Progress& progress);

  void append(std::span<const std::byte> bytes);
  uint64_t tensor_bytes() const noexcept { return tensor_bytes_; }  // appended so far

  // Syncs what was appended and notes how far each file is that changed since the mark before.
  void mark();
  OutputMarks take_mark();  // the oldest one that was not taken yet

  // After the last byte: sums per file, everything synced.
  const std::vector<FileSums>& finish();
  void commit();
  void keep(bool keep);

 private:
  void open_file();
  void write(std::span<const std::byte> bytes);
  void close_finished_files();
  void go_on(const FileMark& mark, TensorHasher& hasher, Progress& progress);
  void read_again(const InputFile& file, uint64_t size_bytes, TensorHasher& hasher, Progress& progress);

  const Plan& plan_;
  const PlannedOutput& output_;
  TensorStream stream_;
  std::vector<std::unique_ptr<OutputFile>> files_;  // begun so far, in order; nullptr: has its final name. The last one is being written
  uint64_t position_ = 0;                           // in the last file
  size_t tensors_left_ = 0;                         // of the last file
  FileHasher hash_;
  std::vector<FileSums> sums_;
  uint64_t tensor_bytes_ = 0;
  OutputMarks changed_;  // finished files since the last mark
  std::mutex marks_mutex_;
  std::deque<OutputMarks> marks_;
};

}  // namespace quern
