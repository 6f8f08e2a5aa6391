#include "formats/base/platform.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "formats/base/file.h"
#include "tests/formats/builders.h"

// These tests hold for every system: they run once with what Linux has and once with what POSIX has (quern_posix_tests).

namespace quern {
namespace {

TEST(Platform, SaysWhatTheMachineHas) {
  EXPECT_GT(available_memory_bytes(), 0u);
  EXPECT_GT(peak_resident_bytes(), 1u << 20);
  EXPECT_GE(available_threads(), 1);
}

TEST(Platform, NeverRenamesOntoAFileThatExists) {
  const test::TempDir dir;
  test::write_text(dir.path() / "a", "new");
  test::write_text(dir.path() / "b", "old");
  EXPECT_EQ(rename_exclusively(dir.path() / "a", dir.path() / "b"), -1);
  EXPECT_TRUE(errno == EEXIST || errno == ENOSYS || errno == EINVAL) << errno;
  EXPECT_EQ(read_text_file(dir.path() / "b", 10), "old");
  if (rename_exclusively(dir.path() / "a", dir.path() / "c") == 0) {
    EXPECT_EQ(read_text_file(dir.path() / "c", 10), "new");
  } else {
    EXPECT_TRUE(errno == ENOSYS || errno == EINVAL) << errno;
  }
}

TEST(Platform, SyncsAndForgetsAnOpenFile) {
  const test::TempDir dir;
  test::write_text(dir.path() / "a", "text");
  const int fd = open((dir.path() / "a").c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_EQ(sync_data(fd), 0);
  drop_cached(fd, 0, 4);
  close(fd);
  EXPECT_EQ(sync_data(fd), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(read_text_file(dir.path() / "a", 10), "text");
}

}  // namespace
}  // namespace quern
