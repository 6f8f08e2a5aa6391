#include "formats/statistics.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "formats/base/error.h"
#include "tests/formats/builders.h"

namespace quern {
namespace {

SecondMoment moment(int64_t n, float start) {
  SecondMoment moment{n, 10, 2.5, {}};
  for (size_t k = 0; k < half_position(n, 0); ++k) moment.half.push_back(start + static_cast<float>(k));
  return moment;
}

void write_example(const std::filesystem::path& folder) {
  StatisticsWriter writer(folder, OutputFile::Overwrite::kRefuse);
  const std::vector<std::string> shared = {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight"};
  writer.add(shared, 0, moment(4, 1.0f), {4, {1, 2, 3, 4, 5, 6, 7, 8}});
  writer.add(shared, kWholeWeight, moment(4, 100.0f), {});
  const std::vector<std::string> output = {"output.weight"};
  writer.add(output, kWholeWeight, moment(3, 7.0f), {});
  writer.finish({"model", "calib.txt", "00", "original", 512, 1024, ""});
}

TEST(Statistics, ReadsWhatWasWritten) {
  const test::TempDir folder;
  write_example(folder.path());
  const Statistics statistics(folder.path());
  EXPECT_EQ(statistics.record().text, "calib.txt");
  EXPECT_EQ(statistics.record().n_tokens, 1024);
  const Statistics::Input* input = statistics.find("blk.0.ffn_up_exps.weight");
  ASSERT_NE(input, nullptr);
  EXPECT_EQ(input, statistics.find("blk.0.ffn_gate_exps.weight"));
  EXPECT_EQ(statistics.find("blk.1.attn_q.weight"), nullptr);
  ASSERT_EQ(input->slices.size(), 2u);
  const Statistics::Loaded expert = statistics.load(*input, input->slices.at(0));
  EXPECT_EQ(expert.moment.half, moment(4, 1.0f).half);
  EXPECT_EQ(expert.moment.n_rows, 10);
  EXPECT_EQ(expert.moment.fourth, 2.5);
  EXPECT_EQ(expert.held.rows, (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(expert.held.n_rows(), 2);
  EXPECT_EQ(statistics.load(*input, input->slices.at(kWholeWeight)).moment.half, moment(4, 100.0f).half);
}

TEST(Statistics, AreNotReplacedUnasked) {
  const test::TempDir folder;
  write_example(folder.path());
  EXPECT_THROW(write_example(folder.path()), Error);
}

TEST(Statistics, NoticeChangedNumbers) {
  const test::TempDir folder;
  write_example(folder.path());
  {
    std::fstream file(folder.path() / "blk.0.bin", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(5);
    file.put('x');
  }
  const Statistics statistics(folder.path());
  const Statistics::Input& input = *statistics.find("blk.0.ffn_up_exps.weight");
  EXPECT_THROW(statistics.load(input, input.slices.at(0)), Error);
  EXPECT_NO_THROW(statistics.load(input, input.slices.at(kWholeWeight)));
}

TEST(Statistics, RefuseListsThatDoNotFitTheirFiles) {
  const test::TempDir folder;
  write_example(folder.path());
  const std::string list = read_text_file(folder.path() / "statistics.json", 1 << 20);
  const auto with = [&](const std::string& old_text, const std::string& new_text) {
    std::string changed = list;
    changed.replace(changed.find(old_text), old_text.size(), new_text);
    std::ofstream(folder.path() / "statistics.json") << changed;
  };
  for (const auto& [old_text, new_text] : {std::pair{"\"n_columns\": 4", "\"n_columns\": 4000"},
                                           {"\"n_held\": 2", "\"n_held\": -2"},
                                           {"\"offset\": 0", "\"offset\": 18446744073709551615"},
                                           {"\"blk.0.bin\"", "\"../blk.0.bin\""},
                                           {"quern.statistics/1", "quern.statistics/9"},
                                           {"\"fourth\"", "\"fifth\""}}) {
    with(old_text, new_text);
    EXPECT_THROW(Statistics{folder.path()}, Error) << new_text;
  }
}

}  // namespace
}  // namespace quern
