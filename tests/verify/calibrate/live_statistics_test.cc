// Statistics that are collected while a build is encoded, and the same from a folder.

#include "verify/calibrate/live_statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "formats/base/parallel.h"
#include "tests/formats/builders.h"
#include "tests/verify/goldens.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

struct Model {
  fs::path path;
  std::unique_ptr<ModelSource> source;
  std::vector<Sequence> chunks;
  std::vector<DType> types;

  explicit Model(const std::string& name)
      : path(fs::path(QUERN_TEST_DATA) / "models" / name), source(open_model(path)), chunks(Goldens(path).chunks) {
    for (const LogicalTensor& tensor : source->tensors()) {
      const bool matrix = tensor.keep == Keep::kMix && tensor.shape.rank() >= 2 && tensor.shape.row_length() % 32 == 0;
      types.push_back(matrix ? DType::Q4_0 : tensor.source_type);
    }
  }

  std::unique_ptr<LiveStatistics> live(const char* mode, const fs::path& folder, bool keep) const {
    StatisticsRecord record;
    record.mode = mode;
    LiveStatistics::Options options{.eval = {}, .chunks = chunks, .folder = folder, .keep = keep};
    return std::make_unique<LiveStatistics>(*source, std::move(options), std::move(record));
  }
};

// Blocks of every tensor that is encoded, in the order in which conversion would come by, and what feedback did to each.
struct Encoded {
  std::map<std::string, std::vector<std::byte>> blocks;
  std::vector<FeedbackLog::Outcome> outcomes;
};

Encoded encode_all(const Model& model, std::unique_ptr<StatisticsSource> statistics, LiveStatistics* live) {
  FeedbackEncoder feedback(std::move(statistics), model.source->tensors(), uint64_t{64} << 20);
  FeedbackLog log;
  const TensorEncoder follower(*model.source, nullptr, Effort::kFast, &feedback);
  const TensorEncoder encoder(*model.source, nullptr, Effort::kFast, &feedback, &log);
  if (live != nullptr) live->follow(model.types, follower);
  std::vector<size_t> order;
  for (size_t i = 0; i < model.types.size(); ++i) {
    if (model.types[i] == DType::Q4_0) order.push_back(i);
  }
  std::ranges::stable_sort(order, {}, [&](size_t i) {
    const LogicalTensor& tensor = model.source->tensors()[i];
    return tensor.name == "output.weight" ? int64_t{1} << 20 : tensor.layer;
  });
  Encoded encoded;
  for (const size_t i : order) {
    const LogicalTensor& tensor = model.source->tensors()[i];
    const int64_t n_rows = tensor.shape.n_rows(), n_columns = tensor.shape.row_length();
    RawRows raw;
    model.source->fetch(i, 0, n_rows, raw);
    std::vector<float> weights(static_cast<size_t>(n_rows * n_columns));
    model.source->decode(raw, weights);
    std::vector<std::byte>& blocks = encoded.blocks[tensor.name];
    blocks.resize(tensor_size_bytes(DType::Q4_0, tensor.shape));
    const std::shared_ptr<const void> held = feedback.prepare(i);
    encoder.encode(i, DType::Q4_0, 0, n_rows, weights, blocks);
  }
  encoded.outcomes = log.outcomes();
  return encoded;
}

struct Case {
  const char* model;
  const char* mode;
};

class LiveStatisticsOf : public testing::TestWithParam<Case> {};

TEST_P(LiveStatisticsOf, GiveTheBytesOfAFolderOnAnyNumberOfThreads) {
  const Model model(GetParam().model);
  const test::TempDir dir;
  std::map<std::string, std::vector<std::byte>> first;
  for (const int threads : {1, 5}) {
    const ThreadLimit limit(threads);
    std::unique_ptr<LiveStatistics> live = model.live(GetParam().mode, dir / "live", false);
    LiveStatistics& follows = *live;
    Encoded encoded = encode_all(model, std::move(live), &follows);
    EXPECT_FALSE(fs::exists(dir / "live")) << "the numbers are left behind";
    if (first.empty()) first = encoded.blocks;
    EXPECT_EQ(encoded.blocks, first) << threads << " threads";
  }
  {
    auto kept = model.live(GetParam().mode, dir / "kept", true);
    LiveStatistics& live = *kept;
    FeedbackEncoder feedback(std::move(kept), model.source->tensors(), uint64_t{64} << 20);
    const TensorEncoder encoder(*model.source, nullptr, Effort::kFast, &feedback);
    live.follow(model.types, encoder);
    live.run_rest();
    live.finish();
  }
  EXPECT_EQ(encode_all(model, open_statistics(dir / "kept", model.source->tensors()), nullptr).blocks, first);
}

TEST_P(LiveStatisticsOf, CoverEveryMatrixAndHelp) {
  const Model model(GetParam().model);
  const test::TempDir dir;
  std::unique_ptr<LiveStatistics> live = model.live(GetParam().mode, dir / "live", false);
  LiveStatistics& follows = *live;
  const Encoded encoded = encode_all(model, std::move(live), &follows);
  const auto n_matrices = std::ranges::count_if(encoded.blocks, [](const auto& entry) { return entry.first != "token_embd.weight"; });
  EXPECT_EQ(std::ssize(encoded.outcomes), n_matrices);
  int64_t n_rows = 0, n_plain = 0;
  for (const FeedbackLog::Outcome& outcome : encoded.outcomes) {
    n_rows += outcome.n_rows;
    n_plain += outcome.n_plain;
    EXPECT_LE(outcome.error, outcome.plain_error) << model.source->tensors()[outcome.tensor].name;
  }
  EXPECT_LT(n_plain, n_rows / 2);
}

// With nothing encoded before it, the first input is the original's, so nothing is shifted.
TEST(SequentialStatistics, BeginWithTheInputsOfTheOriginal) {
  Model model("mini-llama3");
  for (size_t i = 0; i < model.types.size(); ++i) {
    if (model.source->tensors()[i].name == "token_embd.weight") model.types[i] = model.source->tensors()[i].source_type;
  }
  const test::TempDir dir;
  auto kept = model.live(kSequentialMode, dir / "kept", true);
  LiveStatistics& live = *kept;
  FeedbackEncoder feedback(std::move(kept), model.source->tensors(), uint64_t{64} << 20);
  const TensorEncoder encoder(*model.source, nullptr, Effort::kFast, &feedback);
  live.follow(model.types, encoder);
  const auto largest_shift = [&](const char* weight) {
    float largest = 0.0f;
    for (const float s : load_statistics(*live.find(weight), kWholeWeight).shift) largest = std::max(largest, std::fabs(s));
    return largest;
  };
  EXPECT_EQ(largest_shift("blk.0.attn_q.weight"), 0.0f);
  EXPECT_GT(largest_shift("blk.0.attn_output.weight"), 0.0f);
  EXPECT_GT(largest_shift("blk.1.attn_q.weight"), 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Models, LiveStatisticsOf,
                         testing::Values(Case{"mini-llama3", kOriginalMode}, Case{"mini-llama3", kSequentialMode},
                                         Case{"mini-qwen3moe", kOriginalMode}, Case{"mini-qwen3moe", kSequentialMode},
                                         Case{"mini-v3", kSequentialMode}, Case{"mini-v4", kSequentialMode}),
                         [](const auto& test) {
                           std::string name = std::string(test.param.model) + "_" + test.param.mode;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace quern
