#include "formats/base/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/base/error.h"
#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr const char* kPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 17209920\n";

TEST(ModelFolder, ListsAndReadsItsFiles) {
  TempDir dir;
  fs::create_directory(dir / "more");
  test::write_text(dir / "more" / "b.jinja", "b");
  test::write_text(dir / "config.json", "{}");
  const ModelFolder folder(dir.path());
  EXPECT_THAT(folder.names(), ElementsAre("config.json", "more"));
  EXPECT_THAT(folder.names("more"), ElementsAre("b.jinja"));
  EXPECT_THAT(folder.names("absent"), IsEmpty());
  EXPECT_TRUE(folder.has("config.json"));
  EXPECT_FALSE(folder.has("README.md"));
  EXPECT_EQ(folder.read_text("more/b.jinja", 10), "b");
  EXPECT_EQ(folder.read("config.json", 10), test::to_bytes("{}"));
  EXPECT_ERROR(folder.read("config.json", 1), ErrorKind::kFormat, "more than the limit of 1");
  EXPECT_ERROR(folder.open("README.md"), ErrorKind::kIo, "README.md: cannot open: No such file");
}

TEST(ModelFolder, RemembersWhatItsCopiesOpen) {
  TempDir dir;
  for (const char* name : {"config.json", "tokenizer.json", "other.json"}) test::write_text(dir / name, "{}");
  ModelFolder folder(dir.path());
  folder.read_text("other.json", 10);
  folder.remember();
  const ModelFolder copy = folder;
  copy.read_text("tokenizer.json", 10);
  folder.read_text("config.json", 10);
  EXPECT_ERROR(folder.open("README.md"), ErrorKind::kIo, "cannot open");
  EXPECT_THAT(folder.opened(), ElementsAre("config.json", "tokenizer.json"));
}

TEST(ModelFolder, RefusesWhatStandsInPlaceOfAFile) {
  TempDir dir;
  const auto open = [&](const std::string& text) {
    test::write_text(dir / "tokenizer.model", text);
    return ModelFolder(dir.path()).open("tokenizer.model");
  };
  EXPECT_ERROR(open(kPointer), ErrorKind::kFormat, "tokenizer.model: is a Git LFS pointer, not the file itself (run git lfs pull)");
  EXPECT_ERROR(open(""), ErrorKind::kFormat, "tokenizer.model: is empty (incomplete download?)");
  for (const char* page : {"<!DOCTYPE html>\n<html>", "<html lang=en>", "\xEF\xBB\xBF\r\n  <!doctype HTML"}) {
    EXPECT_ERROR(open(page), ErrorKind::kFormat, "tokenizer.model: is an HTML page, not the file itself");
  }
  for (const char* text : {"{", "version 2", "<htm", "<!doctype", "   "}) EXPECT_NO_THROW(open(text)) << text;
}

// A snapshot of the Hub's cache is a folder of links to blobs.
TEST(ModelFolder, FollowsLinksAndNamesThoseToNothing) {
  TempDir dir;
  fs::create_directories(dir / "blobs");
  fs::create_directories(dir / "snapshots" / "0123");
  test::write_text(dir / "blobs" / "abc", "{}");
  fs::create_symlink("../../blobs/abc", dir / "snapshots" / "0123" / "config.json");
  fs::create_symlink("../../blobs/def", dir / "snapshots" / "0123" / "tokenizer.json");
  const ModelFolder folder(dir / "snapshots" / "0123");
  EXPECT_EQ(folder.read_text("config.json", 10), "{}");
  EXPECT_TRUE(folder.has("tokenizer.json"));
  EXPECT_ERROR(folder.open("tokenizer.json"), ErrorKind::kIo,
               "tokenizer.json: is a link to '../../blobs/def', which does not exist (a cache without its blobs?)");
  const std::vector<std::string> names = {"config.json", "tokenizer.json"};
  EXPECT_NO_THROW(require_files(folder, names));
}

// Bytes that no file of this machine has, as of a remote file.
class Counting final : public ByteSource {
 public:
  void read_at(uint64_t offset, std::span<std::byte> out) const override {
    if (offset + out.size() > 256) throw Error(ErrorKind::kIo, "no connection").at(offset);
    for (std::byte& byte : out) byte = static_cast<std::byte>(offset++);
  }
  void read_ahead(uint64_t, uint64_t) const noexcept override {}
  void done_with(uint64_t, uint64_t) const noexcept override {}
};

TEST(InputFile, TakesItsBytesFromAnySource) {
  InputFile opened({"hub/model.safetensors", 256, 7}, std::make_unique<Counting>());
  const InputFile file(std::move(opened));
  std::vector<std::byte> bytes(2);
  file.read_at(254, bytes);
  EXPECT_EQ(bytes[1], std::byte{255});
  EXPECT_EQ(file.size_bytes(), 256U);
  EXPECT_EQ(file.mtime_ns(), 7);
  EXPECT_EQ(read_file(file, 256).size(), 256U);
  EXPECT_ERROR(file.read_at(255, bytes), ErrorKind::kIo, "hub/model.safetensors: offset 255: no connection");
}

}  // namespace
}  // namespace quern
