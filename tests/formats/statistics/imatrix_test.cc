#include "formats/statistics/imatrix.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include "formats/base/bytes.h"
#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"

namespace quern {
namespace {

Imatrix two_weights() {
  Imatrix imatrix;
  imatrix.entries = {{"blk.0.ffn_down_exps.weight", 2, 3, {2, 4, 0, 0, 9, 27}, {2, 0, 9}}, {"output.weight", 3, 1, {512, 1024, 0}, {512}}};
  imatrix.datasets = {"calib.txt"};
  imatrix.chunk_count = 1;
  imatrix.chunk_size = 512;
  return imatrix;
}

std::vector<std::byte> written(const Imatrix& imatrix, ImatrixFormat format) {
  const test::TempDir folder;
  const std::filesystem::path path = folder.path() / "imatrix";
  write_imatrix(imatrix, format, path, OutputFile::Overwrite::kRefuse);
  return read_file(path, 1 << 20);
}

void expect_equal(const Imatrix& a, const Imatrix& b) {
  EXPECT_EQ(a.datasets, b.datasets);
  EXPECT_EQ(a.chunk_count, b.chunk_count);
  EXPECT_EQ(a.chunk_size, b.chunk_size);
  ASSERT_EQ(a.entries.size(), b.entries.size());
  for (size_t i = 0; i < a.entries.size(); ++i) {
    EXPECT_EQ(a.entries[i].name, b.entries[i].name);
    EXPECT_EQ(a.entries[i].n_columns, b.entries[i].n_columns);
    EXPECT_EQ(a.entries[i].n_slices, b.entries[i].n_slices);
    EXPECT_EQ(a.entries[i].sums, b.entries[i].sums);
    EXPECT_EQ(a.entries[i].counts, b.entries[i].counts);
  }
}

TEST(Imatrix, TheGgufFormKeepsEverything) { expect_equal(parse_imatrix(written(two_weights(), ImatrixFormat::kGguf)), two_weights()); }

TEST(Imatrix, TheDatFormKeepsMeansAndSaysOneForWhatWasNeverSeen) {
  const Imatrix read = parse_imatrix(written(two_weights(), ImatrixFormat::kDat));
  EXPECT_EQ(read.format, ImatrixFormat::kDat);
  EXPECT_TRUE(read.counts_are_chunks());
  EXPECT_EQ(read.datasets, std::vector<std::string>{"calib.txt"});
  ASSERT_NE(read.find("blk.0.ffn_down_exps.weight"), nullptr);
  EXPECT_EQ(read.find("blk.0.ffn_down_exps.weight")->sums, (std::vector<float>{1, 2, 1, 1, 1, 3}));
  EXPECT_EQ(read.find("output.weight")->sums, (std::vector<float>{1, 2, 0}));
}

TEST(Imatrix, EveryPrefixOfAFileIsRefused) {
  for (const ImatrixFormat format : {ImatrixFormat::kGguf, ImatrixFormat::kDat}) {
    const std::vector<std::byte> good = written(two_weights(), format);
    const size_t trailer = format == ImatrixFormat::kDat ? 4 + 4 + 9 : 0;  // a .dat may end before or inside what follows the entries
    const size_t padding = format == ImatrixFormat::kGguf ? 28 : 0;        // of the last tensor, which need not be there
    for (size_t n = 0; n < good.size() - padding; ++n) {
      if (n == good.size() - trailer || n == good.size() - trailer + 4) continue;
      const std::vector<std::byte> cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(n));
      EXPECT_THROW(parse_imatrix(cut), Error) << "prefix of " << n << " bytes";
    }
  }
}

TEST(Imatrix, ACountThatTheFileCannotBackCostsNoMemory) {
  std::vector<std::byte> bytes(64);
  store_le(bytes.data(), int32_t{3});
  store_le(bytes.data() + 4, int32_t{1});
  bytes[8] = std::byte{'w'};
  store_le(bytes.data() + 9, int32_t{1});
  store_le(bytes.data() + 13, int32_t{0x7fffffff});
  EXPECT_ERROR(parse_imatrix(bytes), ErrorKind::kFormat, "number of values 2147483647");
}

TEST(Imatrix, AModelIsNotAnImportanceMatrix) {
  Metadata metadata;
  metadata.set("general.architecture", std::string("llama"));
  EXPECT_ERROR(parse_imatrix(gguf::serialize_header(metadata, {})), ErrorKind::kFormat, "a model?");
}

TEST(Imatrix, NamesThatDoNotFitAreRefusedBeforeAnythingIsWritten) {
  const test::TempDir folder;
  Imatrix imatrix = two_weights();
  imatrix.entries[0].name = std::string(56, 'a');
  const std::filesystem::path path = folder.path() / "imatrix";
  EXPECT_ERROR(write_imatrix(imatrix, ImatrixFormat::kGguf, path, OutputFile::Overwrite::kRefuse), ErrorKind::kUnsupported, "56 bytes");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Imatrix, MergingAddsSumsAndCounts) {
  Imatrix other = two_weights();
  other.datasets = {"more.txt"};
  other.entries.pop_back();
  other.entries[0].counts = {0, 4, 1};
  const std::vector<Imatrix> parts = {two_weights(), other};
  const Imatrix merged = merge_imatrices(parts);
  EXPECT_EQ(merged.datasets, (std::vector<std::string>{"calib.txt", "more.txt"}));
  EXPECT_EQ(merged.chunk_count, 2);
  ASSERT_EQ(merged.entries.size(), 2u);
  EXPECT_EQ(merged.entries[0].sums, (std::vector<float>{4, 8, 0, 0, 18, 54}));
  EXPECT_EQ(merged.entries[0].counts, (std::vector<int64_t>{2, 4, 10}));
  EXPECT_EQ(merged.entries[1].sums, two_weights().entries[1].sums);
}

TEST(Imatrix, MergingADatCountsItsChunksInTokens) {
  const Imatrix dat = parse_imatrix(written(two_weights(), ImatrixFormat::kDat));
  const std::vector<Imatrix> parts = {two_weights(), dat};
  const Imatrix merged = merge_imatrices(parts);
  EXPECT_EQ(merged.find("output.weight")->sums, (std::vector<float>{1024, 2048, 0}));
  EXPECT_EQ(merged.find("output.weight")->counts, std::vector<int64_t>{1024});
}

TEST(Imatrix, MergingFilesOfTwoModelsIsRefused) {
  Imatrix other = two_weights();
  other.entries[1] = {"output.weight", 4, 1, {1, 2, 3, 4}, {1}};
  const std::vector<Imatrix> parts = {two_weights(), other};
  EXPECT_ERROR(merge_imatrices(parts), ErrorKind::kFormat, "different models?");
}

TEST(Imatrix, OneCountForAStackSpeaksForEverySlice) {
  Imatrix other = two_weights();
  other.entries[0] = {"blk.0.ffn_down_exps.weight", 6, 1, {1, 1, 1, 1, 1, 1}, {5}};
  const std::vector<Imatrix> parts = {other, two_weights()};
  EXPECT_EQ(merge_imatrices(parts).entries[0].counts, (std::vector<int64_t>{7, 5, 14}));
}

}  // namespace
}  // namespace quern
