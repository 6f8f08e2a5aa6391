#include "formats/base/resources.h"

#include <gtest/gtest.h>

#include "formats/base/error.h"
#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMiB = 1 << 20;

TEST(ParseSize, KnowsDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_size("0"), 0u);
  EXPECT_EQ(parse_size("123456"), 123456u);
  EXPECT_EQ(parse_size("7B"), 7u);
  EXPECT_EQ(parse_size("45GB"), 45'000'000'000u);
  EXPECT_EQ(parse_size("45G"), 45'000'000'000u);
  EXPECT_EQ(parse_size("45GiB"), uint64_t{45} << 30);
  EXPECT_EQ(parse_size("2 KiB"), 2048u);
  EXPECT_EQ(parse_size("2kb"), 2000u);
  EXPECT_EQ(parse_size("1.5MiB"), 3 * kMiB / 2);
  EXPECT_EQ(parse_size("0.1TB"), 100'000'000'000u);
  EXPECT_EQ(parse_size("18446744073709551615"), ~uint64_t{0});
}

TEST(ParseSize, RefusesEverythingElseWithASuggestion) {
  for (const char* text : {"", "GB", ".", "1.", "-1", "+1", "1e9", "1,5GB", "1.5.2GB", "45XB", "45GiBs", "0x10", "1.5", " 1", "99999999TB",
                           "123456789012345678901234567890", "18446744073709551616", "nan"}) {
    SCOPED_TRACE(text);
    EXPECT_ERROR(parse_size(text), ErrorKind::kUsage, "write it like 45GB (45 * 10^9), 45GiB (45 * 2^30)");
  }
}

TEST(FormatSize, ShowsThreeOrFourDigits) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(999), "999 B");
  EXPECT_EQ(format_size(1000), "1.00 KB");
  EXPECT_EQ(format_size(9'994), "9.99 KB");
  EXPECT_EQ(format_size(9'996), "10.0 KB");
  EXPECT_EQ(format_size(999'949), "999.9 KB");
  EXPECT_EQ(format_size(999'950), "1.00 MB");
  EXPECT_EQ(format_size(161'876'000'000), "161.9 GB");
  EXPECT_EQ(format_size(~uint64_t{0}), "18.4 EB");
}

// A folder that looks like / to the functions under test.
class FakeSystem {
 public:
  FakeSystem() { write("proc/meminfo", "MemTotal: 2048 kB\nMemFree:  1 kB\nMemAvailable:   1048576 kB\n"); }
  FakeSystem& write(const char* name, const char* text) {
    const fs::path path = dir_.path() / name;
    fs::create_directories(path.parent_path());
    test::write_text(path, text);
    return *this;
  }
  uint64_t memory() const { return available_memory_bytes(dir_.path()); }
  int threads() const { return available_threads(dir_.path()); }

 private:
  test::TempDir dir_;
};

TEST(AvailableMemory, IsMemAvailableWithoutCgroups) { EXPECT_EQ(FakeSystem().memory(), 1024 * kMiB); }

TEST(AvailableMemory, KeepsToTheAddressSpaceThatUlimitLeaves) {
  FakeSystem system;
  system.write("proc/self/status", "Name: x\nVmPeak:  9999 kB\nVmSize:\t  102400 kB\n");
  const std::string before = "Limit  Soft Limit  Hard Limit  Units\nMax cpu time  unlimited  unlimited  seconds\n";
  system.write("proc/self/limits", (before + "Max address space  314572800  unlimited  bytes\n").c_str());
  EXPECT_EQ(system.memory(), 200 * kMiB);
  system.write("proc/self/limits", (before + "Max address space  1048576  1048576  bytes\n").c_str());
  EXPECT_EQ(system.memory(), 0u);
  system.write("proc/self/limits", (before + "Max address space  unlimited  unlimited  bytes\nMax file locks  7  7  locks\n").c_str());
  EXPECT_EQ(system.memory(), 1024 * kMiB);
}

TEST(AvailableMemory, TakesTheTightestCgroupOnTheWayUp) {
  FakeSystem system;
  system.write("proc/self/cgroup", "0::/user.slice/job\n")
      .write("sys/fs/cgroup/user.slice/memory.max", "104857600\n")  // 100 MiB, 60 used of which 20 are cache
      .write("sys/fs/cgroup/user.slice/memory.current", "62914560\n")
      .write("sys/fs/cgroup/user.slice/memory.stat", "anon 1\ninactive_file 20971520\nactive_file 5\n")
      .write("sys/fs/cgroup/user.slice/job/memory.max", "max\n")
      .write("sys/fs/cgroup/user.slice/job/memory.current", "1000\n");
  EXPECT_EQ(system.memory(), 60 * kMiB);
  system.write("sys/fs/cgroup/user.slice/job/memory.high", "10001000\n");
  EXPECT_EQ(system.memory(), 10'000'000u);
}

TEST(AvailableMemory, ReadsVersion1AndIsZeroWhenNothingIsLeft) {
  FakeSystem system;
  system
      .write("proc/self/cgroup", "12:cpu,cpuacct:/x\n5:memory:/docker/abc\n")  // the path is not mounted inside the container
      .write("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n")
      .write("sys/fs/cgroup/memory/memory.usage_in_bytes", "41943040\n")
      .write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0\n");
  EXPECT_EQ(system.memory(), 60 * kMiB);
  system.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857601\n");
  EXPECT_EQ(system.memory(), 0u);
}

TEST(AvailableMemory, SaysSoWhenTheKernelDoesNotTell) {
  FakeSystem system;
  system.write("proc/meminfo", "MemTotal: 2048 kB\n");
  EXPECT_ERROR(system.memory(), ErrorKind::kIo, "no MemAvailable");
}

TEST(AvailableThreads, AreAtMostTheQuotaRoundedUp) {
  FakeSystem system;
  const int unlimited = system.threads();
  EXPECT_GE(unlimited, 1);
  system.write("proc/self/cgroup", "0::/job\n").write("sys/fs/cgroup/job/cpu.max", "max 100000\n");
  EXPECT_EQ(system.threads(), unlimited);
  system.write("sys/fs/cgroup/job/cpu.max", "50000 100000\n");
  EXPECT_EQ(system.threads(), 1);
  system.write("sys/fs/cgroup/job/cpu.max", "max 100000\n").write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  EXPECT_EQ(system.threads(), 1);
}

TEST(PeakResident, CoversWhatThisProcessHolds) { EXPECT_GT(peak_resident_bytes(), kMiB); }

TEST(DefaultMemoryBudget, IsAtMostTwoGiB) { EXPECT_LE(default_memory_budget(), uint64_t{2} << 30); }

}  // namespace
}  // namespace quern
