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

  void append(std::span<const std::byte> blocks);
  // Bytes of one plane, as they lie in the file. skip() then says how much of the stream these were.
  void append_plane(size_t tensor, size_t plane, std::span<const std::byte> bytes);
  void skip(uint64_t n_bytes) { stream_.skip(n_bytes); }
  std::vector<TensorSums> finish();

 private:
  struct PlaneHash {
    Sha256 whole, slice;
    uint64_t n_bytes = 0;  // in `whole`
  };

  const Plan& plan_;
  const PlannedOutput& output_;
  TensorStream stream_;
  std::vector<PlaneHash> planes_;  // of the tensor that is in work
  std::vector<std::byte> buffer_;
  std::vector<TensorSums> sums_;
};

// Writes the files of one output from the stream of its tensor data: headers first, zeros between, SHA-256 of every file from the
// bytes written. Nothing has its final name before commit(); without it everything is removed that is not to be kept. Not thread-safe, but
// take_mark() may be called beside everything else.
class OutputWriter {
 public:
  OutputWriter(const Plan& plan, size_t output);
  // Goes on where the marks end: what they cover is read again and compared with their sums, and its tensor data is given to `hasher`.
  // Files are kept until keep(false). Throws kFormat when they do not hold what the marks say.
  OutputWriter(const Plan& plan, size_t output, const OutputMarks& marks, TensorHasher& hasher, Progress& progress);

  // Whole blocks of one or several tensors.
  void append(std::span<const std::byte> blocks);
  uint64_t tensor_bytes() const noexcept { return tensor_bytes_; }  // appended so far

  // Syncs what was appended and notes how far each file is that changed since the mark before.
  void mark();
  OutputMarks take_mark();  // the oldest one that was not taken yet

  // After the last byte: sums per file, everything synced.
  const std::vector<FileSums>& finish();
  void commit();
  void keep(bool keep);

 private:
  // A plane behind the first one of its tensor: in its place in the file, but not in the file's sum yet.
  struct LaterPlane {
    std::vector<std::byte> bytes;
    Sha256 hash;
  };

  void open_file();
  void write(std::span<const std::byte> bytes);
  void write_zeros_up_to(uint64_t end);
  void append(const TensorStream::Piece& piece);
  void keep_for_later(size_t tensor, size_t plane, std::span<const std::byte> bytes);
  void end_tensor(size_t tensor);
  uint64_t end_of(size_t tensor) const;
  void close_finished_files();
  void go_on(const FileMark& mark, TensorHasher& hasher, Progress& progress);
  void read_again(const InputFile& file, const FileMark& mark, TensorHasher& hasher, Progress& progress);
  void read_later_planes(const InputFile& file, const FileMark& mark, size_t tensor, uint64_t n_blocks, TensorHasher& hasher);
  FileMark mark_of_file() const;

  const Plan& plan_;
  const PlannedOutput& output_;
  TensorStream stream_;
  std::vector<std::unique_ptr<OutputFile>> files_;  // begun so far, in order; nullptr: has its final name. The last one is being written
  uint64_t position_ = 0;                           // in the last file
  size_t tensors_left_ = 0;                         // of the last file
  std::vector<LaterPlane> later_;                   // of the tensor that is being written
  std::vector<std::byte> buffer_;
  FileHasher hash_;
  std::vector<FileSums> sums_;
  uint64_t tensor_bytes_ = 0;
  OutputMarks changed_;  // finished files since the last mark
  std::mutex marks_mutex_;
  std::deque<OutputMarks> marks_;
};

}  // namespace quern
