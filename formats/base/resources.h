#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quern {

// "45GB" = 45e9, "45GiB" = 45 * 2^30, also K/M/T and plain bytes; decimals ("1.5GiB") allowed. Throws kUsage with a suggestion.
uint64_t parse_size(std::string_view text);
// "161.9 GB" (decimal units, 3-4 significant digits).
std::string format_size(uint64_t bytes);

// Memory that this process may use, from /proc/meminfo MemAvailable and the cgroup limits (v1 and v2).
uint64_t available_memory_bytes();
// The smaller of 2 GiB and half of available_memory_bytes().
uint64_t default_memory_budget();
// Peak resident set of this process so far (VmHWM).
uint64_t peak_resident_bytes();

// Threads the process may run on (affinity and cgroup quota).
int available_threads();

}  // namespace quern
