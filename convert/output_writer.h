#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "convert/build_record.h"
#include "convert/journal.h"
#include "convert/plan.h"
#include "convert/tensor_stream.h"
#include "formats/base/file.h"
#include "formats/base/sha256.h"

namespace quern {

// SHA-256 of a file and of its pieces of kPieceBytes.
struct FileSums {
  std::string sha256;
  std::vector<std::string> pieces_sha256;
};

// Computes them from bytes as they come.
class FileHasher {
 public:
  void update(std::span<const std::byte> bytes);
  // The object starts anew afterwards.
  FileSums finish();

 private:
  Sha256 file_hash_, piece_hash_;
  uint64_t piece_bytes_ = 0;  // in piece_hash_
  std::vector<std::string> pieces_;
};

// Writes the files of one output from the stream of its tensor data: headers first, padding between, SHA-256 of every file from the
// bytes written. Nothing has its final name before commit(); without it everything is removed. Not thread-safe.
class OutputWriter {
 public:
  // id: plan_id(plan), for the journal.
  OutputWriter(const Plan& plan, size_t output, const std::string& id);

  void append(std::span<const std::byte> bytes);
  // Tells that the chunks before this number have been appended; syncs and journals now and then.
  void chunk_done(int64_t n_chunks);

  // After the last byte: sums per file, everything synced.
  const std::vector<FileSums>& finish();
  void commit();

 private:
  void open_file();
  void write(std::span<const std::byte> bytes);
  void close_finished_files();

  const Plan& plan_;
  const PlannedOutput& output_;
  TensorStream stream_;
  std::vector<std::unique_ptr<OutputFile>> files_;  // opened so far, in order; the last one is being written
  std::optional<Journal> journal_;                  // made once the first part file, which is locked, is ours
  uint64_t position_ = 0;                           // in the last file
  size_t tensors_left_ = 0;                         // of the last file
  FileHasher hash_;
  std::vector<FileSums> sums_;
  uint64_t tensor_bytes_ = 0;
  uint64_t unsynced_bytes_ = 0;
};

// SHA-256 per tensor and per slice of stacked tensors.
struct TensorSums {
  std::string sha256;
  std::vector<std::string> slices;  // empty unless stacked
};

// Computes them from the same stream. Separate from the writer so that both can work at the same time. Not thread-safe.
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

}  // namespace quern
