#include "formats/base/platform.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "formats/base/error.h"

// Linux says what it has in text files below /proc and /sys. Memory is limited in three places (the machine, ulimit -v, and the cgroup of
// the process with all those around it), processors in two (affinity and the quotas of cgroups); the tightest limit counts. What is not
// there, as in a container without cgroups, is no limit.

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

std::string read_or_empty(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  return text.str();
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// Value of "NAME  123" or "NAME:   123 kB" in a file of such lines.
std::optional<uint64_t> find_field(std::string_view text, std::string_view name) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    if (line.starts_with(name)) {
      const size_t digit = line.find_first_of("0123456789", name.size());
      if (digit != std::string_view::npos) return parse_number(line.substr(digit));
    }
    begin = end + 1;
  }
  return std::nullopt;
}

// Calls `visit` for the cgroup folder of this process in one hierarchy and for all its parents: a limit anywhere above binds.
// Inside a container the path that the kernel names may not be mounted; its mounted parents still are.
void for_each_cgroup(const fs::path& mount, std::string_view cgroup_path, const std::function<void(const fs::path&)>& visit) {
  fs::path relative = fs::path(cgroup_path).relative_path();
  for (;;) {
    visit(mount / relative);
    if (relative.empty()) return;
    relative = relative.parent_path();
  }
}

struct Cgroups {
  std::optional<std::string> unified;  // v2
  std::optional<std::string> memory;   // v1 hierarchies
  std::optional<std::string> cpu;
};

// /proc/self/cgroup: lines "ID:CONTROLLERS:PATH"; v2 is "0::PATH".
Cgroups find_cgroups(const fs::path& root) {
  Cgroups found;
  std::istringstream lines(read_or_empty(root / "proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") found.unified = path;
    if (controllers.find(",memory,") != std::string::npos) found.memory = path;
    if (controllers.find(",cpu,") != std::string::npos) found.cpu = path;
  }
  return found;
}

fs::path unified_mount(const fs::path& root) {
  const fs::path hybrid = root / "sys/fs/cgroup/unified";
  std::error_code absent;
  return fs::is_directory(hybrid, absent) ? hybrid : root / "sys/fs/cgroup";
}

// What one cgroup leaves: limit - usage, where page cache that nobody uses counts as free.
uint64_t memory_left(const fs::path& folder, const char* limit_file, const char* usage_file, const char* inactive_field) {
  const std::optional<uint64_t> limit = parse_number(read_or_empty(folder / limit_file));  // "max" is no number
  const std::optional<uint64_t> usage = parse_number(read_or_empty(folder / usage_file));
  if (!limit || !usage) return kUnlimited;
  const uint64_t inactive = std::min(find_field(read_or_empty(folder / "memory.stat"), inactive_field).value_or(0), *usage);
  const uint64_t used = *usage - inactive;
  return *limit > used ? *limit - used : 0;
}

// What the process may still map (ulimit -v). Not all that is mapped is resident, but what is resident is mapped.
uint64_t address_space_left(const fs::path& root) {
  const std::optional<uint64_t> limit =
      find_field(read_or_empty(root / "proc/self/limits"), "Max address space");  // "unlimited" is no number
  const std::optional<uint64_t> kib = find_field(read_or_empty(root / "proc/self/status"), "VmSize:");
  if (!limit || !kib) return kUnlimited;
  return *limit > *kib * 1024 ? *limit - *kib * 1024 : 0;
}

uint64_t threads_of_quota(std::optional<uint64_t> quota, std::optional<uint64_t> period) {
  if (!quota || !period || *quota == 0 || *period == 0) return kUnlimited;
  return (*quota + *period - 1) / *period;
}

uint64_t threads_left_v2(const fs::path& folder) {
  const std::string text = read_or_empty(folder / "cpu.max");  // "200000 100000" or "max 100000"
  const size_t space = text.find(' ');
  if (space == std::string::npos) return kUnlimited;
  return threads_of_quota(parse_number(text), parse_number(std::string_view(text).substr(space + 1)));
}

uint64_t threads_left_v1(const fs::path& folder) {
  return threads_of_quota(parse_number(read_or_empty(folder / "cpu.cfs_quota_us")),  // "-1" is no number here
                          parse_number(read_or_empty(folder / "cpu.cfs_period_us")));
}

uint64_t threads_of_affinity() {
  for (size_t n_cpus = 1024; n_cpus <= (size_t{1} << 20); n_cpus *= 2) {  // the kernel's mask may be larger than ours
    cpu_set_t* set = CPU_ALLOC(n_cpus);
    if (set == nullptr) break;
    const size_t size = CPU_ALLOC_SIZE(n_cpus);
    const bool known = sched_getaffinity(0, size, set) == 0;
    const int count = known ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (known) return static_cast<uint64_t>(std::max(count, 1));
  }
  return 1;
}

}  // namespace

uint64_t available_memory_bytes(const fs::path& system_root) {
  const std::string meminfo = read_or_empty(system_root / "proc/meminfo");
  const std::optional<uint64_t> kib = find_field(meminfo, "MemAvailable:");
  if (!kib) throw Error(ErrorKind::kIo, "/proc/meminfo has no MemAvailable; give a memory budget");
  uint64_t available = std::min(*kib * 1024, address_space_left(system_root));
  const Cgroups cgroups = find_cgroups(system_root);
  if (cgroups.unified) {
    for_each_cgroup(unified_mount(system_root), *cgroups.unified, [&](const fs::path& folder) {
      available = std::min(available, memory_left(folder, "memory.max", "memory.current", "inactive_file "));
      available = std::min(available, memory_left(folder, "memory.high", "memory.current", "inactive_file "));
    });
  }
  if (cgroups.memory) {
    for_each_cgroup(system_root / "sys/fs/cgroup/memory", *cgroups.memory, [&](const fs::path& folder) {
      available = std::min(available, memory_left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "));
    });
  }
  return available;
}

uint64_t peak_resident_bytes() { return find_field(read_or_empty("/proc/self/status"), "VmHWM:").value_or(0) * 1024; }

int available_threads(const fs::path& system_root) {
  uint64_t threads = threads_of_affinity();
  const Cgroups cgroups = find_cgroups(system_root);
  if (cgroups.unified) {
    for_each_cgroup(unified_mount(system_root), *cgroups.unified,
                    [&](const fs::path& folder) { threads = std::min(threads, threads_left_v2(folder)); });
  }
  if (cgroups.cpu) {
    for_each_cgroup(system_root / "sys/fs/cgroup/cpu", *cgroups.cpu,
                    [&](const fs::path& folder) { threads = std::min(threads, threads_left_v1(folder)); });
  }
  return static_cast<int>(std::max<uint64_t>(threads, 1));
}

int rename_exclusively(const fs::path& from, const fs::path& to) noexcept {
  return syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0 ? 0 : -1;
}

int sync_data(int fd) noexcept { return fdatasync(fd); }

void read_into_cache(int fd, uint64_t offset, uint64_t size_bytes) noexcept {
  posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(size_bytes), POSIX_FADV_WILLNEED);
}

void drop_cached(int fd, uint64_t offset, uint64_t size_bytes) noexcept {
  posix_fadvise(fd, static_cast<off_t>(offset), static_cast<off_t>(size_bytes), POSIX_FADV_DONTNEED);
}

bool allow_tile_registers() noexcept {
#if defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace quern
