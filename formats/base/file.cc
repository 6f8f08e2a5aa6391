#include "formats/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "formats/base/error.h"
#include "formats/base/platform.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

Error io_error(const fs::path& path, const char* action, int code) {
  return std::move(Error(ErrorKind::kIo, std::string(action) + ": " + std::generic_category().message(code)).file(path.string()));
}

struct stat status_of(int fd, const fs::path& path) {
  struct stat status {};
  if (fstat(fd, &status) != 0) throw io_error(path, "cannot read the file status", errno);
  return status;
}

Error exists_error(const fs::path& path) { return std::move(Error(ErrorKind::kUsage, "exists; --force replaces it").file(path.string())); }

// Renames without replacing. Where that is no single step, there is a hard link, which fails on an existing name too.
// Returns 0 or an errno value.
int rename_without_replacing(const fs::path& from, const fs::path& to) {
  if (rename_exclusively(from, to) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (link(from.c_str(), to.c_str()) == 0) return unlink(from.c_str()) == 0 ? 0 : errno;
  if (errno != EPERM && errno != EOPNOTSUPP && errno != EMLINK) return errno;
  struct stat status {};
  if (lstat(to.c_str(), &status) == 0) return EEXIST;  // neither call exists here: a check is the best that is left
  return rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

template <typename Buffer>
Buffer read_whole(const InputFile& file, uint64_t max_bytes) {
  if (file.size_bytes() > max_bytes) {
    throw Error(ErrorKind::kFormat,
                "file has " + std::to_string(file.size_bytes()) + " bytes, more than the limit of " + std::to_string(max_bytes))
        .file(file.path().string());
  }
  Buffer buffer;
  buffer.resize(file.size_bytes());
  file.read_at(0, std::as_writable_bytes(std::span(buffer)));
  return buffer;
}

// O_NONBLOCK: opening a pipe that nobody writes to must fail, not wait.
int open_to_read(const fs::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) return fd;
  const int code = errno;
  std::error_code no_link;
  const fs::path target = code == ENOENT ? fs::read_symlink(path, no_link) : fs::path();
  if (target.empty()) throw io_error(path, "cannot open", code);
  throw Error(ErrorKind::kIo, "is a link to '" + printable(target.string()) + "', which does not exist (a cache without its blobs?)")
      .file(path.string());
}

class LocalFile final : public ByteSource {
 public:
  explicit LocalFile(int fd) : fd_(fd) {}
  ~LocalFile() override { close(fd_); }
  LocalFile(const LocalFile&) = delete;
  LocalFile& operator=(const LocalFile&) = delete;

  int fd() const noexcept { return fd_; }

  void read_at(uint64_t offset, std::span<std::byte> out) const override {
    while (!out.empty()) {
      const ssize_t n = pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw Error(ErrorKind::kIo, "cannot read: " + std::generic_category().message(errno)).at(offset);
      if (n == 0) {
        throw Error(ErrorKind::kFormat, "file ends here, " + std::to_string(out.size()) + " more bytes expected (incomplete download?)")
            .at(offset);
      }
      out = out.subspan(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
  }

  void read_ahead(uint64_t offset, uint64_t size_bytes) const noexcept override { read_into_cache(fd_, offset, size_bytes); }
  void done_with(uint64_t offset, uint64_t size_bytes) const noexcept override { drop_cached(fd_, offset, size_bytes); }

 private:
  int fd_;
};

}  // namespace

InputFile::InputFile(FileIdentity identity, std::unique_ptr<const ByteSource> bytes)
    : identity_(std::move(identity)), bytes_(std::move(bytes)) {}

InputFile::InputFile(fs::path path) : identity_{std::move(path)} {
  auto file = std::make_unique<LocalFile>(open_to_read(identity_.path));
  const struct stat status = status_of(file->fd(), identity_.path);
  if (!S_ISREG(status.st_mode)) throw Error(ErrorKind::kIo, "is not a regular file").file(identity_.path.string());
  identity_.size_bytes = static_cast<uint64_t>(status.st_size);
  identity_.mtime_ns = static_cast<int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
  bytes_ = std::move(file);
}

void InputFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  try {
    bytes_->read_at(offset, out);
  } catch (Error& e) {
    e.file(identity_.path.string());
    throw;
  }
}

fs::path temporary_root() {
  const char* folder = std::getenv("TMPDIR");
  return folder != nullptr && *folder != '\0' ? folder : "/var/tmp";
}

fs::path make_temporary_folder(const std::string& name) {
  std::string path = temporary_root() / (name + "-XXXXXX");
  if (mkdtemp(path.data()) == nullptr) throw io_error(path, "cannot create a temporary folder", errno);
  return path;
}

std::vector<std::byte> read_file(const InputFile& file, uint64_t max_bytes) { return read_whole<std::vector<std::byte>>(file, max_bytes); }
std::vector<std::byte> read_file(const fs::path& path, uint64_t max_bytes) { return read_file(InputFile(path), max_bytes); }

std::string read_text_file(const InputFile& file, uint64_t max_bytes) { return read_whole<std::string>(file, max_bytes); }
std::string read_text_file(const fs::path& path, uint64_t max_bytes) { return read_text_file(InputFile(path), max_bytes); }

fs::path part_path(const fs::path& path) {
  fs::path part = path;
  part += ".part";
  return part;
}

// A process that committed between our open and our lock has renamed the file under us: the inode check finds that and tries again, so
// that a finished file is never truncated.
int open_locked(const fs::path& path) {
  for (;;) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) throw io_error(path, "cannot create", errno);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      close(fd);
      throw Error(ErrorKind::kIo, "another process is writing it").file(path.string());
    }
    struct stat opened {};
    struct stat named {};
    if (fstat(fd, &opened) == 0 && lstat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino && opened.st_dev == named.st_dev) {
      return fd;
    }
    close(fd);
  }
}

void make_folder(const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw io_error(folder, "cannot create the folder", failed.value());
}

void check_output_path(const fs::path& path, OutputFile::Overwrite overwrite) {
  struct stat status {};
  if (lstat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) throw Error(ErrorKind::kUsage, "is a folder, not a file").file(path.string());
    if (overwrite == OutputFile::Overwrite::kRefuse) throw exists_error(path);
    return;
  }
  std::error_code ignored;
  if (!fs::is_directory(folder_of(path), ignored)) {
    throw Error(ErrorKind::kUsage, "'" + printable(folder_of(path).string()) + "' is not a folder").file(path.string());
  }
}

// Some network file systems cannot sync folders (EINVAL): their renames are synchronous.
void sync_folder(const fs::path& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw io_error(folder, "cannot open the folder", errno);
  const int code = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  if (code != 0 && code != EINVAL) throw io_error(folder, "cannot sync the folder", code);
}

OutputFile::OutputFile(fs::path path, Overwrite overwrite, uint64_t keep_bytes)
    : path_(std::move(path)), part_path_(part_path(path_)), overwrite_(overwrite) {
  check_output_path(path_, overwrite_);
  fd_ = open_locked(part_path_);
  if (ftruncate(fd_, static_cast<off_t>(keep_bytes)) != 0) {
    const int code = errno;
    close(fd_);
    throw io_error(part_path_, "cannot truncate", code);
  }
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  if (!keep_part_) unlink(part_path_.c_str());
  close(fd_);  // after the unlink: the lock that it releases protects the name
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  QUERN_CHECK(fd_ >= 0);
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw io_error(part_path_, "cannot write", errno).at(offset);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

void OutputFile::sync() {
  QUERN_CHECK(fd_ >= 0);
  if (sync_data(fd_) != 0) throw io_error(part_path_, "cannot sync", errno);
}

void OutputFile::commit() {
  sync();
  int code = 0;
  if (overwrite_ == Overwrite::kRefuse) {
    code = rename_without_replacing(part_path_, path_);
  } else if (rename(part_path_.c_str(), path_.c_str()) != 0) {
    code = errno;
  }
  if (code == EEXIST) throw exists_error(path_);
  if (code != 0) throw io_error(path_, "cannot rename the finished file", code);
  close(std::exchange(fd_, -1));
  sync_folder(folder_of(path_));
}

void write_file_atomically(const fs::path& path, std::string_view text, OutputFile::Overwrite overwrite) {
  OutputFile file(path, overwrite);
  file.write_at(0, std::as_bytes(std::span(text)));
  file.commit();
}

uint64_t free_space_bytes(const fs::path& folder) {
  std::error_code absent;
  fs::path existing = fs::absolute(folder);
  while (!fs::exists(existing, absent) && existing != existing.root_path()) existing = existing.parent_path();
  struct statvfs status {};
  if (statvfs(existing.c_str(), &status) != 0) throw io_error(existing, "cannot ask for the free space", errno);
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

}  // namespace quern
