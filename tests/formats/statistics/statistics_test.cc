#include "formats/statistics/statistics.h"

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

InputStatistics example(int64_t n, float start, std::vector<float> held = {}) {
  InputStatistics statistics;
  statistics.moment = moment(n, start);
  statistics.held.n_columns = n;
  statistics.held.rows = std::move(held);
  return statistics;
}

void write_example(const std::filesystem::path& folder) {
  StatisticsWriter writer(folder, OutputFile::Overwrite::kRefuse);
  const std::vector<std::string> shared = {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight"};
  writer.add(shared, 0, example(4, 1.0f, {1, 2, 3, 4, 5, 6, 7, 8}));
  writer.add(shared, kWholeWeight, example(4, 100.0f));
  const std::vector<std::string> output = {"output.weight"};
  writer.add(output, kWholeWeight, example(3, 7.0f));
  writer.finish({"model", "calib.txt", "00", kOriginalMode, 512, 1024, ""});
}

TEST(Statistics, ReadsWhatWasWritten) {
  const test::TempDir folder;
  write_example(folder.path());
  Statistics statistics(folder.path());
  EXPECT_EQ(statistics.record().text, "calib.txt");
  EXPECT_EQ(statistics.record().n_tokens, 1024);
  const std::shared_ptr<const StatisticsInput> input = statistics.find("blk.0.ffn_up_exps.weight");
  ASSERT_NE(input, nullptr);
  EXPECT_EQ(input, statistics.find("blk.0.ffn_gate_exps.weight"));
  EXPECT_EQ(statistics.find("blk.1.attn_q.weight"), nullptr);
  ASSERT_EQ(input->slices.size(), 2u);
  const InputStatistics expert = load_statistics(*input, 0);
  EXPECT_EQ(expert.moment.half, moment(4, 1.0f).half);
  EXPECT_EQ(expert.moment.n_rows, 10);
  EXPECT_EQ(expert.moment.fourth, 2.5);
  EXPECT_EQ(expert.held.rows, (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(expert.held.n_rows(), 2);
  EXPECT_EQ(load_statistics(*input, kWholeWeight).moment.half, moment(4, 100.0f).half);
  EXPECT_TRUE(expert.shift.empty());
}

TEST(Statistics, HoldTheOriginalBesideTheBuildInSequentialMode) {
  const test::TempDir folder;
  StatisticsWriter writer(folder.path(), OutputFile::Overwrite::kRefuse);
  const std::vector<std::string> weights = {"blk.0.attn_q.weight"};
  const std::vector<float> shift = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  InputStatistics sequential = example(3, 1.0f, {1, 2, 3});
  sequential.shift = shift;
  sequential.held_original = {3, {4, 5, 6}};
  writer.add(weights, kWholeWeight, sequential);
  const std::vector<StatisticsWriter::Finished> finished = writer.finish_inputs();
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0].weights, weights);
  EXPECT_EQ(load_statistics(*finished[0].input, kWholeWeight).shift, shift);  // before the list is written
  writer.finish({"model", "calib.txt", "00", kSequentialMode, 512, 1024, ""});
  Statistics statistics(folder.path());
  const InputStatistics loaded = load_statistics(*statistics.find("blk.0.attn_q.weight"), kWholeWeight);
  EXPECT_EQ(loaded.shift, shift);
  EXPECT_EQ(loaded.held.rows, (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(loaded.held_original.rows, (std::vector<float>{4, 5, 6}));
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
    std::fstream file(folder.path() / "blk.0.ffn_gate_exps.bin", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(5);
    file.put('x');
  }
  Statistics statistics(folder.path());
  const std::shared_ptr<const StatisticsInput> input = statistics.find("blk.0.ffn_up_exps.weight");
  EXPECT_THROW(load_statistics(*input, 0), Error);
  EXPECT_NO_THROW(load_statistics(*input, kWholeWeight));
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
                                           {"\"blk.0.ffn_gate_exps.bin\"", "\"../blk.0.ffn_gate_exps.bin\""},
                                           {"quern.statistics/2", "quern.statistics/9"},
                                           {"\"fourth\"", "\"fifth\""}}) {
    with(old_text, new_text);
    EXPECT_THROW(Statistics{folder.path()}, Error) << new_text;
  }
}

}  // namespace
}  // namespace quern
