// Statistics on their way from a folder to the encoders.

#include <gmock/gmock.h>

#include <random>

#include "convert/parts/part.h"
#include "convert/plan/plan_json.h"
#include "formats/gguf/gguf.h"
#include "formats/statistics/statistics.h"
#include "tests/convert/conversion.h"
#include "tests/formats/expect_error.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// n inputs that go together: two strong directions and a little of their own.
std::vector<float> inputs(int64_t n, int64_t columns, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> directions(static_cast<size_t>(2 * columns));
  for (float& x : directions) x = normal(random);
  std::vector<float> rows;
  for (int64_t t = 0; t < n; ++t) {
    const float first = 2.0f * normal(random), second = normal(random);
    for (int64_t j = 0; j < columns; ++j) {
      rows.push_back(first * directions[static_cast<size_t>(j)] + second * directions[static_cast<size_t>(columns + j)] +
                     0.3f * normal(random));
    }
  }
  return rows;
}

void add_made_up(StatisticsWriter& writer, const std::string& weight, int64_t slice, int64_t columns, uint64_t seed) {
  constexpr int64_t kRows = 160, kHeld = 40;
  const std::vector<float> rows = inputs(kRows + kHeld, columns, seed);
  SecondMoment moment{columns, kRows, 0.0, std::vector<float>(half_position(columns, 0))};
  for (int64_t t = 0; t < kRows; ++t) {
    const float* x = rows.data() + t * columns;
    double norm = 0.0;
    for (int64_t i = 0; i < columns; ++i) {
      norm += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      for (int64_t j = 0; j <= i; ++j) moment.half[half_position(i, j)] += x[i] * x[j] / static_cast<float>(kRows);
    }
    moment.fourth += norm * norm;
  }
  const std::vector<std::string> weights = {weight};
  writer.add(weights, slice, {moment, {columns, {rows.begin() + kRows * columns, rows.end()}}, {}, {}});
}

// A model with statistics for some of its tensors, of all kinds.
struct Fed {
  TempDir dir;
  fs::path model;
  std::unique_ptr<ModelSource> source;
  Calibration calibration;

  explicit Fed(const std::string& name) : model(bundled(name)), source(open_model(model)) {
    {
      StatisticsWriter writer(dir / "stats", OutputFile::Overwrite::kRefuse);
      uint64_t seed = 1;
      for (const LogicalTensor& tensor : source->tensors()) {
        if (tensor.keep != Keep::kMix || tensor.shape.row_length() % 32 != 0 || !tensor.name.starts_with("blk.1.")) continue;
        if (tensor.shape.rank() == 3) add_made_up(writer, tensor.name, 1, tensor.shape.row_length(), ++seed);  // the others saw nothing
        add_made_up(writer, tensor.name, kWholeWeight, tensor.shape.row_length(), ++seed);
      }
      writer.finish({name, "calib.txt", "00", "original", 512, 4096, ""});
    }
    read();
  }

  void read() {
    calibration.feedback =
        std::make_unique<FeedbackEncoder>(open_statistics(dir / "stats", source->tensors()), source->tensors(), uint64_t{1} << 20);
  }

  Plan plan(const fs::path& folder, std::vector<std::string> types, uint64_t extra) const {
    PlanOptions options = options_for(folder, std::move(types));
    options.statistics = dir / "stats";
    options.memory_bytes = plan_for(*source, model, options, calibration).base_bytes + extra;
    return plan_for(*source, model, options, calibration);
  }
};

TEST(ConvertWithFeedback, LowersTheOutputErrorAndSaysSo) {
  const Fed fed("mini-qwen3moe");
  const Plan plan = fed.plan(fed.dir / "out", {"Q4_0"}, uint64_t{2} << 30);
  const ConvertReport report = run_plan(*fed.source, plan, no_progress(), fed.calibration);
  ASSERT_GT(report.feedback.size(), 4u);
  for (const auto& [tensor, outcome] : report.feedback) {
    EXPECT_TRUE(tensor.starts_with("blk.1.")) << tensor;
    EXPECT_LT(outcome.error, 0.8 * outcome.plain_error) << tensor;
    EXPECT_EQ(outcome.n_unfactored, 0) << tensor;
  }
  const gguf::File file(fed.dir / "out" / plan.outputs[0].files[0].name);
  EXPECT_EQ(file.metadata().find("quern.feedback.statistics_sha256") != nullptr, true);
}

TEST(ConvertWithFeedback, GivesTheSameBytesOnAnyNumberOfThreadsAndAnyBudget) {
  const Fed fed("mini-qwen3moe");
  std::map<std::string, std::string> first;
  for (const auto& [threads, extra] : {std::pair{1, uint64_t{8} << 20}, {8, uint64_t{2} << 30}}) {
    const ThreadLimit limit(threads);
    const fs::path folder = fed.dir / std::to_string(threads);
    run_plan(*fed.source, fed.plan(folder, {"Q4_0"}, extra), no_progress(), fed.calibration);
    if (first.empty()) first = hashes(folder);
    EXPECT_EQ(hashes(folder), first) << threads << " threads, " << extra << " bytes";
  }
}

TEST(ConvertWithFeedback, KeepsAPlanToItsStatistics) {
  const Fed fed("mini-llama3");
  const Plan plan = plan_from_json(plan_to_json(fed.plan(fed.dir / "out", {"Q4_0"}, uint64_t{2} << 30)));
  ASSERT_TRUE(plan.statistics.has_value());
  EXPECT_EQ(plan.statistics->sha256, fed.calibration.feedback->record().sha256);
  EXPECT_ERROR(run_plan(*fed.source, plan, no_progress()), ErrorKind::kUsage, "other statistics");
}

TEST(ConvertWithFeedback, RefusesStatisticsOfAnotherModel) {
  const std::unique_ptr<ModelSource> source = open_model(bundled("mini-llama3"));
  for (const char* const weight : {"blk.0.attn_q.weight", "blk.0.something.weight"}) {
    const TempDir dir;
    {
      StatisticsWriter writer(dir / "stats", OutputFile::Overwrite::kRefuse);
      add_made_up(writer, weight, kWholeWeight, 32, 1);
      writer.finish({"another", "calib.txt", "00", "original", 512, 4096, ""});
    }
    EXPECT_ERROR(open_statistics(dir / "stats", source->tensors()), ErrorKind::kFormat, "of another model");
  }
}

}  // namespace
}  // namespace quern::test
