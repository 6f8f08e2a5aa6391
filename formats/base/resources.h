#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace quern {

// A number of bytes as people write it. Decimal units K, M, G, T (also KB, MB, ...) are powers of 1000, as in llama-gguf-split and
// on the Hub; KiB, MiB, GiB, TiB are powers of 1024; no unit means bytes. Decimals ("1.5GiB"), a space before the unit and any
// letter case are allowed, exponents and signs are not. Throws kUsage with a suggestion.
uint64_t parse_size(std::string_view text);
// "161.9 GB" (decimal units, 3-4 significant digits).
std::string format_size(uint64_t bytes);

// Memory that this process may still use: the least of MemAvailable, what ulimit -v leaves, and what every enclosing cgroup (v1 and v2)
// leaves below its limit, counting its inactive page cache as free. system_root is the folder that holds proc/ and sys/ (a test's own,
// otherwise "/").
uint64_t available_memory_bytes(const std::filesystem::path& system_root = "/");
// The smaller of 2 GiB and half of available_memory_bytes().
uint64_t default_memory_budget();
// Peak resident set of this process so far (VmHWM).
uint64_t peak_resident_bytes();

// Threads that the process may run on: its CPU affinity and the quotas of the enclosing cgroups, rounded up. At least 1.
int available_threads(const std::filesystem::path& system_root = "/");

}  // namespace quern
