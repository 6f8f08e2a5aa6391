// Preloaded into quern: makes calls of the C library fail as FAULT says, and watches the order of those that make files durable.
//
//   FAULT=CALL:WHAT:N   CALL: pwrite, write, pread, read, fdatasync, fsync, rename, malloc; change: any that changes the disk
//                       WHAT: ENOSPC or EIO (the Nth call fails, ENOSPC all later ones too), EINTR (every Nth call is interrupted),
//                       short (every Nth call does at most one byte), null (the Nth allocation fails),
//                       kill (only for change: the process is killed at the Nth, a write half done)
//   FAULT=count         says on standard error how often each was called
//
// A crash is told with the file whose code it is in, and where. In any case the process is aborted, with a line that says why, when a file
// gets another name while bytes written to it are not synced, and when it ends successfully while a folder in which names changed is not
// synced: after a power cut a final name must be a whole file.
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace {

enum Call { kPwrite, kWrite, kPread, kRead, kFdatasync, kFsync, kRename, kMalloc, kChange, kNCalls };
constexpr const char* kNames[kNCalls] = {"pwrite", "write", "pread", "read", "fdatasync", "fsync", "rename", "malloc", "change"};
constexpr int kNoCall = -1, kEverything = -2;

std::atomic<long> counts[kNCalls];

struct Fault {
  int call = kNoCall;
  int code = 0;  // errno; 0: short or null
  long n = 0;
  bool repeats = false;  // every Nth call
};

Fault read_fault() {
  Fault fault;
  const char* text = std::getenv("FAULT");
  if (text == nullptr) return fault;
  if (std::strcmp(text, "count") == 0) return {kEverything, 0, 0, false};
  char call[32] = "", what[32] = "";
  if (std::sscanf(text, "%31[^:]:%31[^:]:%ld", call, what, &fault.n) != 3) std::abort();
  for (int i = 0; i < kNCalls; ++i) {
    if (std::strcmp(call, kNames[i]) == 0) fault.call = i;
  }
  fault.code = std::strcmp(what, "ENOSPC") == 0  ? ENOSPC
               : std::strcmp(what, "EIO") == 0   ? EIO
               : std::strcmp(what, "EINTR") == 0 ? EINTR
                                                 : 0;
  fault.repeats = fault.code == EINTR || std::strcmp(what, "short") == 0;
  return fault;
}

const Fault& fault() {
  static const Fault read = read_fault();
  return read;
}

// Whether this call is one that the fault hits.
bool hit(Call call) {
  const long count = ++counts[call];
  const Fault& f = fault();
  if (f.call != call) return false;
  if (f.repeats) return count % f.n == 0;
  return count == f.n || (f.code == ENOSPC && count > f.n);
}

// Counts a change of the disk that is about to be made; `in_part` makes a part of it where the process is to be killed at this one.
template <typename InPart>
void change(InPart&& in_part) {
  if (!hit(kChange)) return;
  in_part();
  std::raise(SIGKILL);
}

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Files with bytes that are not synced, and folders with names that are not, by inode. Tables without allocation: malloc is watched too.
struct Inodes {
  static constexpr int kMost = 256;
  ino_t inodes[kMost];
  int n = 0;

  void add(ino_t inode) {
    for (int i = 0; i < n; ++i) {
      if (inodes[i] == inode) return;
    }
    if (n < kMost) inodes[n++] = inode;
  }
  void remove(ino_t inode) {
    for (int i = 0; i < n; ++i) {
      if (inodes[i] == inode) inodes[i] = inodes[--n];
    }
  }
  bool has(ino_t inode) const {
    for (int i = 0; i < n; ++i) {
      if (inodes[i] == inode) return true;
    }
    return false;
  }
};

std::mutex mutex;
Inodes dirty_files, dirty_folders;

void fail(const char* what, const char* path) {
  std::fprintf(stderr, "faults: %s: %s\n", what, path);
  std::abort();
}

void written(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return;
  const std::lock_guard lock(mutex);
  dirty_files.add(status.st_ino);
}

void synced(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return;
  const std::lock_guard lock(mutex);
  (S_ISDIR(status.st_mode) ? dirty_folders : dirty_files).remove(status.st_ino);
}

void check_synced(const char* from) {
  struct stat status;
  if (stat(from, &status) != 0) return;
  const std::lock_guard lock(mutex);
  if (dirty_files.has(status.st_ino)) fail("renamed before it was synced", from);
}

void renamed(const char* to) {
  char folder[4096];
  std::snprintf(folder, sizeof folder, "%s", to);
  char* slash = std::strrchr(folder, '/');
  if (slash != nullptr) *slash = '\0';
  struct stat status;
  if (stat(slash != nullptr ? folder : ".", &status) != 0) return;
  const std::lock_guard lock(mutex);
  dirty_folders.add(status.st_ino);
}

int set_error() {
  errno = fault().code;
  return -1;
}

// The call, done in part or not at all when the fault hits it.
template <typename Call_>
ssize_t transfer(Call call, size_t size, Call_&& go) {
  if (call == kPwrite || call == kWrite) change([&] { go(size / 2); });
  if (!hit(call)) return go(size);
  if (fault().code != 0) return set_error();
  return go(size < 1 ? size : 1);
}

int sync_with(int (*next)(int), Call call, int fd) {
  change([] {});
  if (hit(call)) return set_error();
  const int code = next(fd);
  if (code == 0) synced(fd);
  return code;
}

// The innermost code that is not the C library's.
void on_crash(int signal) {
  void* frames[64];
  const int n = backtrace(frames, 64);
  for (int i = 1; i < n; ++i) {  // 0 is this function
    Dl_info info;
    if (dladdr(frames[i], &info) == 0 || std::strstr(info.dli_fname, "/libc.so") != nullptr) continue;
    const auto offset = static_cast<const char*>(frames[i]) - static_cast<const char*>(info.dli_fbase);
    std::fprintf(stderr, "faults: crash in %s at %#tx\n", info.dli_fname, offset);
    break;
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

__attribute__((constructor)) void at_start() {
  void* frame;
  backtrace(&frame, 1);  // loads what it needs while there is memory
  std::signal(SIGSEGV, on_crash);
}

__attribute__((destructor)) void at_exit() {
  if (fault().call == kEverything) {
    for (int i = 0; i < kNCalls; ++i) std::fprintf(stderr, "faults: %s %ld\n", kNames[i], counts[i].load());
  }
  if (fault().call < 0 && dirty_folders.n > 0) fail("ended", "names in a folder are not synced");
}

}  // namespace

extern "C" {

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  static auto* const next = real<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  return transfer(kPwrite, size, [&](size_t n) {
    const ssize_t done = next(fd, data, n, offset);
    written(fd);
    return done;
  });
}
ssize_t pwrite64(int fd, const void* data, size_t size, off_t offset) { return pwrite(fd, data, size, offset); }

ssize_t write(int fd, const void* data, size_t size) {
  static auto* const next = real<ssize_t(int, const void*, size_t)>("write");
  if (fd <= 2) return next(fd, data, size);
  return transfer(kWrite, size, [&](size_t n) { return next(fd, data, n); });
}

ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  static auto* const next = real<ssize_t(int, void*, size_t, off_t)>("pread");
  return transfer(kPread, size, [&](size_t n) { return next(fd, data, n, offset); });
}
ssize_t pread64(int fd, void* data, size_t size, off_t offset) { return pread(fd, data, size, offset); }

ssize_t read(int fd, void* data, size_t size) {
  static auto* const next = real<ssize_t(int, void*, size_t)>("read");
  return transfer(kRead, size, [&](size_t n) { return next(fd, data, n); });
}

int fdatasync(int fd) {
  static auto* const next = real<int(int)>("fdatasync");
  return sync_with(next, kFdatasync, fd);
}

int fsync(int fd) {
  static auto* const next = real<int(int)>("fsync");
  return sync_with(next, kFsync, fd);
}

int rename(const char* from, const char* to) noexcept {
  static auto* const next = real<int(const char*, const char*)>("rename");
  check_synced(from);
  change([] {});
  if (hit(kRename)) return set_error();
  const int code = next(from, to);
  if (code == 0) renamed(to);
  return code;
}

// The C library has no renameat2 on every system that quern is built on, so quern makes the call itself.
long syscall(long number, ...) noexcept {
  static auto* const next = real<long(long, ...)>("syscall");
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  if (number != SYS_renameat2) return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  check_synced(reinterpret_cast<const char*>(a[1]));
  change([] {});
  if (hit(kRename)) return set_error();
  const long code = next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (code == 0) renamed(reinterpret_cast<const char*>(a[3]));
  return code;
}

void* __libc_malloc(size_t);

void* malloc(size_t size) {
  // getenv and the statics above may not be ready in the loader; they do not allocate.
  if (!hit(kMalloc)) return __libc_malloc(size);
  errno = ENOMEM;
  return nullptr;
}
}
