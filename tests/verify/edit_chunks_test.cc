// Hubs store files as content-defined chunks: what an edit costs to upload is the chunks that are new.

#include <gtest/gtest.h>

#include <set>

#include "formats/gguf/gguf_edit.h"
#include "tests/convert/conversion.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::TempDir;

// Chunks that end where a rolling (gear) hash of the last bytes has 16 zero bits: 64 KiB on average, 8 to 128 KiB.
void add_chunks(const fs::path& path, std::multiset<std::string>& chunks) {
  constexpr size_t kLeast = 8 << 10, kMost = 128 << 10;
  constexpr uint64_t kMask = uint64_t{0xFFFF} << 48;
  static const std::vector<uint64_t> gear = [] {
    std::vector<uint64_t> table(256);
    uint64_t state = 1;
    for (uint64_t& value : table) value = state = state * 6364136223846793005 + 1442695040888963407;
    return table;
  }();
  const Bytes bytes = read_file(path, uint64_t{1} << 30);
  uint64_t hash = 0;
  size_t begin = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    hash = (hash << 1) + gear[static_cast<size_t>(bytes[i])];
    const size_t size = i + 1 - begin;
    const bool ends = i + 1 == bytes.size() || size == kMost || (size >= kLeast && (hash & kMask) == 0);
    if (!ends) continue;
    chunks.insert(sha256_hex(std::span(bytes).subspan(begin, size)));
    begin = i + 1;
  }
}

std::multiset<std::string> chunks_of(const fs::path& folder) {
  std::multiset<std::string> chunks;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf") add_chunks(entry.path(), chunks);
  }
  return chunks;
}

void change_template(const fs::path& path, const std::string& text) {
  const gguf::Header header = gguf::read_header(InputFile(path));
  Metadata metadata = header.metadata;
  metadata.set("tokenizer.chat_template", text);
  const gguf::Edit edit = gguf::plan_edit(header, metadata);
  ASSERT_TRUE(edit.in_place);
  gguf::edit_in_place(path, edit);
}

double shared_share(const fs::path& folder, const std::string& end, const std::string& text) {
  const std::multiset<std::string> before = chunks_of(folder);
  change_template(test::file_ending(folder, end), text);
  std::multiset<std::string> after = chunks_of(folder);
  const double n = static_cast<double>(after.size());
  size_t shared = 0;
  for (const std::string& chunk : before) {
    const auto found = after.find(chunk);
    if (found == after.end()) continue;
    after.erase(found);
    ++shared;
  }
  EXPECT_GT(n, 40);
  return static_cast<double>(shared) / n;
}

TEST(EditChunks, ATemplateChangeKeepsMoreThan95PercentOfThemInOneFile) {
  const TempDir dir;
  test::convert(test::bundled("mini-v4"), test::options_for(dir.path(), {"lossless"}));
  EXPECT_GE(shared_share(dir.path(), ".gguf", std::string(12000, 't')), 0.95);
}

TEST(EditChunks, ATemplateChangeKeepsMoreThan95PercentOfThemInASplitSet) {
  const TempDir dir;
  PlanOptions options = test::options_for(dir.path(), {"lossless"});
  options.split_bytes = 2'000'000;
  options.metadata_shard = true;
  test::convert(test::bundled("mini-v4"), options);
  EXPECT_GE(shared_share(dir.path(), "-00001-of-00004.gguf", std::string(12000, 't')), 0.95);
}

}  // namespace
}  // namespace quern
