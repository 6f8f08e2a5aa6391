#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "formats/base/error.h"
#include "formats/base/platform.h"

// The stand-in for systems other than Linux: what POSIX offers and nothing beyond. The tests compile it on Linux too and run what depends
// on it, so that it cannot rot.

namespace quern {

uint64_t available_memory_bytes(const std::filesystem::path&) {
  const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) throw Error(ErrorKind::kIo, "the system does not say how much memory it has; give a memory budget");
  const uint64_t half = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes) / 2;
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return half;
  return std::min<uint64_t>(half, limit.rlim_cur);
}

uint64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  constexpr uint64_t kUnit = 1;
#else
  constexpr uint64_t kUnit = 1024;
#endif
  return static_cast<uint64_t>(usage.ru_maxrss) * kUnit;
}

int available_threads(const std::filesystem::path&) { return static_cast<int>(std::max(sysconf(_SC_NPROCESSORS_ONLN), 1L)); }

int rename_exclusively(const std::filesystem::path&, const std::filesystem::path&) noexcept {
  errno = ENOSYS;
  return -1;
}

int sync_data(int fd) noexcept { return fsync(fd); }

void read_into_cache(int, uint64_t, uint64_t) noexcept {}

void drop_cached(int, uint64_t, uint64_t) noexcept {}

bool allow_tile_registers() noexcept { return false; }

}  // namespace quern
