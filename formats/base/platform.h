#pragma once

#include <cstdint>
#include <filesystem>

namespace quern {

// What POSIX does not have and every system does in its own way: all that is Linux alone is in platform_linux.cc. On other systems
// platform_posix.cc stands in, with less exact answers and without the kernel's favours.

// Memory that this process may still use: the least of MemAvailable, what ulimit -v leaves, and what every enclosing cgroup (v1 and v2)
// leaves below its limit, counting its inactive page cache as free. system_root is the folder that holds proc/ and sys/ (a test's own,
// otherwise "/"). Elsewhere: half of the machine's memory, or what ulimit -v allows. Throws kIo when the system does not say.
uint64_t available_memory_bytes(const std::filesystem::path& system_root = "/");
// Peak resident set of this process so far.
uint64_t peak_resident_bytes();

// Threads that the process may run on: its CPU affinity and the quotas of the enclosing cgroups, rounded up. Elsewhere: the processors
// of the machine. At least 1.
int available_threads(const std::filesystem::path& system_root = "/");

// Renames in one step that fails where `to` exists. Returns as rename does: -1 with errno EEXIST then, and with ENOSYS or EINVAL where the
// system or the file system has no such step.
int rename_exclusively(const std::filesystem::path& from, const std::filesystem::path& to) noexcept;

// Waits until the contents of a file are on the disk, its times perhaps not. Returns as fsync does.
int sync_data(int fd) noexcept;

// A hint: this part of a file will be read soon.
void read_into_cache(int fd, uint64_t offset, uint64_t size_bytes) noexcept;
// A hint: the kernel need not keep this part of a file in memory.
void drop_cached(int fd, uint64_t offset, uint64_t size_bytes) noexcept;

// Asks the kernel for the tile registers of AMX, which a process may not touch before. False where it does not give them.
bool allow_tile_registers() noexcept;

}  // namespace quern
