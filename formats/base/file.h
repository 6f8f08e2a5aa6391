#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace quern {

// Where the bytes of an open file come from: a file of this machine, or anything that can give ranges of bytes. Thread-safe.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Fills `out` from `offset`; throws kIo when that fails and kFormat when the file ends first, both with the offset.
  virtual void read_at(uint64_t offset, std::span<std::byte> out) const = 0;

  // Hints: the range will be read next (so that several ranges are on their way at once), and will not be read again (so that a 700 GB
  // checkpoint does not evict everything else).
  virtual void read_ahead(uint64_t offset, uint64_t size_bytes) const noexcept = 0;
  virtual void done_with(uint64_t offset, uint64_t size_bytes) const noexcept = 0;
};

// What tells one version of a file from another.
struct FileIdentity {
  std::filesystem::path path;
  uint64_t size_bytes = 0;
  int64_t mtime_ns = 0;
};

// A file opened for positioned reads. Thread-safe after construction. Errors carry the path and the offset.
class InputFile {
 public:
  // A file of this machine. Throws kIo when the path cannot be opened or is not a regular file; a link to a file that does not exist
  // is called that.
  explicit InputFile(std::filesystem::path path);
  InputFile(FileIdentity identity, std::unique_ptr<const ByteSource> bytes);

  const std::filesystem::path& path() const noexcept { return identity_.path; }
  uint64_t size_bytes() const noexcept { return identity_.size_bytes; }
  int64_t mtime_ns() const noexcept { return identity_.mtime_ns; }

  // As ByteSource has them; errors name the file.
  void read_at(uint64_t offset, std::span<std::byte> out) const;
  void read_ahead(uint64_t offset, uint64_t size_bytes) const noexcept { bytes_->read_ahead(offset, size_bytes); }
  void done_with(uint64_t offset, uint64_t size_bytes) const noexcept { bytes_->done_with(offset, size_bytes); }

 private:
  FileIdentity identity_;
  std::unique_ptr<const ByteSource> bytes_;
};

// Where large temporary files go: TMPDIR, else /var/tmp, which unlike /tmp is on a disk.
std::filesystem::path temporary_root();
// A new folder there; whoever asks for it removes it.
std::filesystem::path make_temporary_folder(const std::string& name);

// Whole small file; throws kFormat when it is larger than max_bytes.
std::vector<std::byte> read_file(const InputFile& file, uint64_t max_bytes);
std::vector<std::byte> read_file(const std::filesystem::path& path, uint64_t max_bytes);
std::string read_text_file(const InputFile& file, uint64_t max_bytes);
std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes);

// A file that exists under its final name only when it is complete: bytes go to "PATH.part" (any order, any thread), commit()
// syncs the data, renames and syncs the folder. Without commit() the destructor removes the .part file unless it is to be kept
// (a journal then allows to continue).
class OutputFile {
 public:
  enum class Overwrite { kRefuse, kAllow };

  // Throws kUsage when `path` exists and overwriting is refused, kIo when it cannot be created. What a part file already has is
  // dropped after its first keep_bytes.
  OutputFile(std::filesystem::path path, Overwrite overwrite, uint64_t keep_bytes = 0);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  void sync();
  void commit();
  void keep_part(bool keep) noexcept { keep_part_ = keep; }

 private:
  std::filesystem::path path_;
  std::filesystem::path part_path_;
  int fd_ = -1;
  Overwrite overwrite_;
  bool keep_part_ = false;
};

// "PATH.part"
std::filesystem::path part_path(const std::filesystem::path& path);

// Opens `path` for reading and writing, created if absent, and locks it against other processes until it is closed. Throws kIo, also
// when another process holds it. What is open has the name `path`: a file that was renamed or removed meanwhile is not taken.
int open_locked(const std::filesystem::path& path);

// Makes the folder, and those above it, where they are absent. Throws kIo.
void make_folder(const std::filesystem::path& folder);

// For work that writes its one file at the end: throws kUsage when that could not be made, because `path` is a folder or in none, or
// exists and overwriting is refused.
void check_output_path(const std::filesystem::path& path, OutputFile::Overwrite overwrite);

// Makes what happened to the names in a folder durable: files created, renamed, removed.
void sync_folder(const std::filesystem::path& folder);

// Small file written atomically by the same rules.
void write_file_atomically(const std::filesystem::path& path, std::string_view text, OutputFile::Overwrite overwrite);

// Bytes that an unprivileged process may still write in the file system that holds `folder`.
uint64_t free_space_bytes(const std::filesystem::path& folder);

}  // namespace quern
