#include "formats/base/resources.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>

#include "formats/base/error.h"

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

constexpr std::string_view kUnitLetters = "KMGT";

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

// Bytes per unit: "" and "B" 1, "K" and "KB" 1000, "KIB" 1024, and so on. Empty when it is none.
std::optional<uint64_t> unit_bytes(std::string_view unit) {
  std::string name;
  for (const char c : unit) name += upper(c);
  if (name.empty() || name == "B") return 1;
  const size_t power = kUnitLetters.find(name[0]);
  if (power == std::string_view::npos) return std::nullopt;
  const std::string rest = name.substr(1);
  if (!rest.empty() && rest != "B" && rest != "IB") return std::nullopt;
  uint64_t bytes = 1;
  for (size_t i = 0; i <= power; ++i) bytes *= rest == "IB" ? 1024 : 1000;
  return bytes;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

uint64_t parse_size(std::string_view text) {
  const auto fail = [&](const char* why) -> Error {
    return Error(ErrorKind::kUsage,
                 "size '" + std::string(text) + "' " + why + "; write it like 45GB (45 * 10^9), 45GiB (45 * 2^30) or 45000000000");
  };
  // Enough for any size in practice, and the products below stay far from 128 bits.
  if (text.empty() || text.size() > 40) throw fail("is not a number with a unit");
  using Wide = unsigned __int128;
  Wide digits = 0;
  Wide divisor = 1;
  size_t i = 0;
  size_t n_digits = 0;
  bool fraction = false;
  for (; i < text.size() && (is_digit(text[i]) || (text[i] == '.' && !fraction)); ++i) {
    if (text[i] == '.') {
      fraction = true;
      continue;
    }
    if (++n_digits > 20) throw fail("has too many digits");
    digits = digits * 10 + static_cast<Wide>(text[i] - '0');
    if (fraction) divisor *= 10;
  }
  if (n_digits == 0 || text[i - 1] == '.') throw fail("is not a number with a unit");
  while (i < text.size() && text[i] == ' ') ++i;
  const std::optional<uint64_t> unit = unit_bytes(text.substr(i));
  if (!unit) throw fail("is not a number with a unit");
  if (fraction && *unit == 1) throw fail("is a fraction of a byte");
  const Wide bytes = digits * *unit / divisor;
  if (bytes > kUnlimited) throw fail("is larger than 64 bits");
  return static_cast<uint64_t>(bytes);
}

std::string format_size(uint64_t bytes) {
  if (bytes < 1000) return std::to_string(bytes) + " B";
  constexpr const char* kUnits[] = {"B", "KB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 999.95) {  // what would round to 1000.0
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, value < 9.995 ? "%.2f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

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

uint64_t default_memory_budget() { return std::min(uint64_t{2} << 30, available_memory_bytes() / 2); }

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

}  // namespace quern
