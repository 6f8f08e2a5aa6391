#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace quern {

// A file opened for positioned reads. Thread-safe after construction. Errors carry the path and the offset.
class InputFile {
 public:
  // Throws kIo when the path cannot be opened or is not a regular file.
  explicit InputFile(std::filesystem::path path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }
  uint64_t size_bytes() const noexcept { return size_bytes_; }
  int64_t mtime_ns() const noexcept { return mtime_ns_; }

  // Fills `out` from `offset`; throws kIo on a read error and kFormat when the file ends first.
  void read_at(uint64_t offset, std::span<std::byte> out) const;

  // Hints: the range will be read soon / will not be read again (so that a 700 GB checkpoint does not evict everything else).
  void will_need(uint64_t offset, uint64_t size_bytes) const noexcept;
  void done_with(uint64_t offset, uint64_t size_bytes) const noexcept;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t size_bytes_ = 0;
  int64_t mtime_ns_ = 0;
};

// Where large temporary files go: TMPDIR, else /var/tmp, which unlike /tmp is on a disk.
std::filesystem::path temporary_root();
// A new folder there; whoever asks for it removes it.
std::filesystem::path make_temporary_folder(const std::string& name);

// Whole small file; throws kFormat when it is larger than max_bytes.
std::vector<std::byte> read_file(const std::filesystem::path& path, uint64_t max_bytes);
std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes);

// A file that exists under its final name only when it is complete: bytes go to "PATH.part" (any order, any thread), commit()
// syncs the data, renames and syncs the folder. Without commit() the destructor removes the .part file unless keep_part() was
// called (a journal then allows to continue).
class OutputFile {
 public:
  enum class Overwrite { kRefuse, kAllow };

  // Throws kUsage when `path` exists and overwriting is refused, kIo when it cannot be created.
  // size_bytes > 0 preallocates nothing but lets the caller write in any order.
  OutputFile(std::filesystem::path path, Overwrite overwrite);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  void sync();
  void commit();
  void keep_part() noexcept { keep_part_ = true; }

 private:
  std::filesystem::path path_;
  std::filesystem::path part_path_;
  int fd_ = -1;
  Overwrite overwrite_;
  bool keep_part_ = false;
};

// Small file written atomically by the same rules.
void write_file_atomically(const std::filesystem::path& path, std::string_view text, OutputFile::Overwrite overwrite);

// Bytes that an unprivileged process may still write in the file system that holds `folder`.
uint64_t free_space_bytes(const std::filesystem::path& folder);

}  // namespace quern
