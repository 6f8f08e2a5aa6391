#include "formats/base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <thread>

#include "formats/base/error.h"
#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"

namespace quern {
namespace {

using test::TempDir;
using test::to_bytes;

TEST(InputFile, ReadsAtAnyOffset) {
  TempDir dir;
  test::write_text(dir / "f", "0123456789");
  const InputFile file(dir / "f");
  EXPECT_EQ(file.size_bytes(), 10u);
  std::vector<std::byte> bytes(4);
  file.read_at(6, bytes);
  EXPECT_EQ(bytes, to_bytes("6789"));
  file.read_at(10, {});
}

TEST(InputFile, NamesPathAndOffsetWhenTheFileEnds) {
  TempDir dir;
  test::write_text(dir / "f", "0123456789");
  const InputFile file(dir / "f");
  std::vector<std::byte> bytes(4);
  EXPECT_ERROR(file.read_at(8, bytes), ErrorKind::kFormat, (dir / "f").string() + ": offset 10: file ends here, 2 more bytes expected");
}

TEST(InputFile, RefusesWhatIsNoRegularFile) {
  TempDir dir;
  EXPECT_ERROR(InputFile(dir / "absent"), ErrorKind::kIo, "cannot open: No such file");
  EXPECT_ERROR(InputFile(dir.path()), ErrorKind::kIo, "not a regular file");
  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_ERROR(InputFile(dir / "pipe"), ErrorKind::kIo, "not a regular file");
}

TEST(ReadFile, RefusesFilesOverTheLimit) {
  TempDir dir;
  test::write_text(dir / "f", "0123456789");
  EXPECT_EQ(read_text_file(dir / "f", 10), "0123456789");
  EXPECT_EQ(read_file(dir / "f", 10), to_bytes("0123456789"));
  EXPECT_ERROR(read_file(dir / "f", 9), ErrorKind::kFormat, "file has 10 bytes, more than the limit of 9");
}

TEST(OutputFile, AppearsOnlyOnCommit) {
  TempDir dir;
  {
    OutputFile out(dir / "f", OutputFile::Overwrite::kRefuse);
    out.write_at(5, to_bytes("world"));
    out.write_at(0, to_bytes("hello"));
    EXPECT_FALSE(std::filesystem::exists(dir / "f"));
    EXPECT_TRUE(std::filesystem::exists(dir / "f.part"));
    out.commit();
  }
  EXPECT_EQ(read_text_file(dir / "f", 100), "helloworld");
  EXPECT_FALSE(std::filesystem::exists(dir / "f.part"));
}

TEST(OutputFile, RemovesThePartFileUnlessKept) {
  TempDir dir;
  { OutputFile out(dir / "f", OutputFile::Overwrite::kRefuse); }
  EXPECT_FALSE(std::filesystem::exists(dir / "f.part"));
  {
    OutputFile out(dir / "f", OutputFile::Overwrite::kRefuse);
    out.write_at(0, to_bytes("abc"));
    out.keep_part(true);
  }
  EXPECT_EQ(read_text_file(dir / "f.part", 100), "abc");
  EXPECT_FALSE(std::filesystem::exists(dir / "f"));
}

TEST(OutputFile, RefusesToOverwriteAtTheStartAndAtTheEnd) {
  TempDir dir;
  test::write_text(dir / "f", "old");
  EXPECT_ERROR(OutputFile(dir / "f", OutputFile::Overwrite::kRefuse), ErrorKind::kUsage, "exists; --force replaces it");
  OutputFile late(dir / "g", OutputFile::Overwrite::kRefuse);
  late.write_at(0, to_bytes("new"));
  test::write_text(dir / "g", "older");
  EXPECT_ERROR(late.commit(), ErrorKind::kUsage, "exists; --force replaces it");
  EXPECT_EQ(read_text_file(dir / "g", 100), "older");
}

TEST(OutputFile, ReplacesWhenAllowed) {
  TempDir dir;
  test::write_text(dir / "f", "a long old text");
  OutputFile out(dir / "f", OutputFile::Overwrite::kAllow);
  out.write_at(0, to_bytes("new"));
  EXPECT_EQ(read_text_file(dir / "f", 100), "a long old text");
  out.commit();
  EXPECT_EQ(read_text_file(dir / "f", 100), "new");
}

TEST(OutputFile, StartsFromNothingWhenAPartFileWasLeftBehind) {
  TempDir dir;
  test::write_text(dir / "f.part", "a long leftover of an interrupted run");
  OutputFile out(dir / "f", OutputFile::Overwrite::kRefuse);
  out.write_at(0, to_bytes("new"));
  out.commit();
  EXPECT_EQ(read_text_file(dir / "f", 100), "new");
}

TEST(OutputFile, RefusesASecondWriterOfTheSameFile) {
  TempDir dir;
  const OutputFile first(dir / "f", OutputFile::Overwrite::kRefuse);
  EXPECT_ERROR(OutputFile(dir / "f", OutputFile::Overwrite::kRefuse), ErrorKind::kIo, "f.part: another process is writing it");
}

TEST(OutputFile, RefusesFoldersAndLinks) {
  TempDir dir;
  EXPECT_ERROR(OutputFile(dir.path(), OutputFile::Overwrite::kAllow), ErrorKind::kUsage, "is a folder");
  EXPECT_ERROR(OutputFile(dir / "no/f", OutputFile::Overwrite::kAllow), ErrorKind::kUsage, "no' is not a folder");
  test::write_text(dir / "victim", "precious");
  std::filesystem::create_symlink(dir / "victim", dir / "f.part");
  EXPECT_ERROR(OutputFile(dir / "f", OutputFile::Overwrite::kAllow), ErrorKind::kIo, "cannot create");
  EXPECT_EQ(read_text_file(dir / "victim", 100), "precious");
}

TEST(OutputFile, ReportsAFullDiskWithPathAndOffset) {
  TempDir dir;
  OutputFile out(dir / "f", OutputFile::Overwrite::kRefuse);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  // The first 1000 bytes are written short; the error is at the first byte that does not fit.
  EXPECT_ERROR(out.write_at(500, std::vector<std::byte>(4000)), ErrorKind::kIo,
               (dir / "f.part").string() + ": offset 1000: cannot write: File too large");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
}

TEST(OutputFile, TakesWritesFromManyThreads) {
  TempDir dir;
  OutputFile out(dir / "f", OutputFile::Overwrite::kRefuse);
  std::vector<std::jthread> threads;
  for (char c = 'a'; c < 'i'; ++c) {
    threads.emplace_back([&out, c] { out.write_at(static_cast<uint64_t>('h' - c) * 1000, to_bytes(std::string(1000, c))); });
  }
  threads.clear();
  out.commit();
  const std::string text = read_text_file(dir / "f", 8000);
  ASSERT_EQ(text.size(), 8000u);
  for (size_t i = 0; i < text.size(); ++i) ASSERT_EQ(text[i], static_cast<char>('h' - i / 1000));
}

TEST(WriteFileAtomically, WritesAndRefuses) {
  TempDir dir;
  write_file_atomically(dir / "f", "text", OutputFile::Overwrite::kRefuse);
  EXPECT_EQ(read_text_file(dir / "f", 100), "text");
  EXPECT_ERROR(write_file_atomically(dir / "f", "other", OutputFile::Overwrite::kRefuse), ErrorKind::kUsage, "exists; --force replaces it");
}

TEST(FreeSpace, AsksTheNearestFolderThatExists) {
  TempDir dir;
  EXPECT_GT(free_space_bytes(dir / "not/made/yet"), 0u);
}

}  // namespace
}  // namespace quern
