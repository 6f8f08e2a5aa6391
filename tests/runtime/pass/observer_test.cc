// What observers are told: each matrix's rows times what was observed must be what the next step gets.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "formats/base/parallel.h"
#include "formats/statistics/importance.h"
#include "runtime/observe/imatrix_collector.h"
#include "runtime/pass/evaluator.h"

namespace quern {
namespace {

// Keeps every row by weight and slice.
class Recorder final : public ActivationObserver {
 public:
  struct Rows {
    int64_t n_columns = 0;
    std::vector<float> values;
    std::vector<float> shares;
    int64_t n_rows() const { return static_cast<int64_t>(values.size()) / n_columns; }
    double at(int64_t row, int64_t column) const { return static_cast<double>(values[static_cast<size_t>(row * n_columns + column)]); }
  };

  void observe(const ObservedInput& input) override {
    for (const std::string_view weight : input.weights) {
      Rows& rows = seen[{std::string(weight), input.slice}];
      rows.n_columns = input.rows->n_columns();
      rows.shares.insert(rows.shares.end(), input.shares.begin(), input.shares.end());
      for (int64_t i = 0; i < input.rows->n_rows(); ++i) {
        const float* lane = input.rows->panel(i / kPanelWidth) + i % kPanelWidth;
        for (int64_t j = 0; j < rows.n_columns; ++j) rows.values.push_back(lane[j * kPanelWidth]);
      }
    }
  }

  const Rows& of(const std::string& weight, int64_t slice = -1) const {
    const auto found = seen.find({weight, slice});
    EXPECT_NE(found, seen.end()) << weight << " slice " << slice;
    static const Rows none{1, {}, {}};
    return found == seen.end() ? none : found->second;
  }

  std::map<std::pair<std::string, int64_t>, Rows> seen;
};

std::unique_ptr<ModelSource> open(const std::string& name) { return open_model(std::filesystem::path(QUERN_TEST_DATA) / "models" / name); }

std::vector<Sequence> texts(int64_t n, int64_t length) {
  std::vector<Sequence> sequences(static_cast<size_t>(n));
  for (int64_t s = 0; s < n; ++s) {
    for (int64_t t = 0; t < length; ++t)
      sequences[static_cast<size_t>(s)].tokens.push_back(static_cast<int32_t>((7 + 31 * t + 5 * s * t) % 500));
  }
  return sequences;
}

void run(const ModelSource& source, ActivationObserver& observer, const std::vector<Sequence>& sequences,
         uint64_t memory = uint64_t{8} << 30) {
  Evaluator evaluator(source, {.memory_bytes = memory, .observer = &observer});
  evaluator.forward(sequences, no_progress());
}

// Row `row` of slice `slice` of a tensor, as floats.
std::vector<float> weight_row(const ModelSource& source, const std::string& name, int64_t row) {
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    if (source.tensors()[i].name != name) continue;
    std::vector<float> values(static_cast<size_t>(source.tensors()[i].shape.row_length()));
    RawRows raw;
    source.fetch(i, row, 1, raw);
    source.decode(raw, values);
    return values;
  }
  ADD_FAILURE() << name;
  return {};
}

double dot(const std::vector<float>& w, const Recorder::Rows& rows, int64_t row) {
  double sum = 0;
  for (int64_t j = 0; j < rows.n_columns; ++j) sum += static_cast<double>(w[static_cast<size_t>(j)]) * rows.at(row, j);
  return sum;
}

TEST(ActivationObserver, AttnVbTimesItsInputIsTheInputOfTheOutputProjection) {
  const auto source = open("mini-v3");
  Recorder seen;
  run(*source, seen, texts(2, 40));
  const Recorder::Rows& output = seen.of("blk.0.attn_output.weight");
  ASSERT_EQ(output.n_rows(), 80);
  int64_t n_heads = 0;
  while (seen.seen.contains({"blk.0.attn_v_b.weight", n_heads})) ++n_heads;
  ASSERT_GT(n_heads, 1);
  const int64_t value_dim = output.n_columns / n_heads;
  for (const int64_t row : {0, 1, 39, 40, 79}) {
    for (int64_t head = 0; head < n_heads; ++head) {
      const double expected = output.at(row, head * value_dim + 3);
      const std::vector<float> w = weight_row(*source, "blk.0.attn_v_b.weight", head * value_dim + 3);
      EXPECT_NEAR(dot(w, seen.of("blk.0.attn_v_b.weight", head), row), expected, 1e-5 + 1e-4 * std::abs(expected));
    }
  }
}

TEST(ActivationObserver, AttnKbSeesTheQueriesThatWereNotRotated) {
  const auto source = open("mini-v3");
  Recorder seen;
  run(*source, seen, texts(1, 24));
  const Recorder::Rows& latent = seen.of("blk.1.attn_q_b.weight");
  const Recorder::Rows& head1 = seen.of("blk.1.attn_k_b.weight", 1);
  const int64_t key_dim = source->metadata().get_int("deepseek2.attention.key_length_mla");
  for (const int64_t row : {0, 7, 23}) {
    const double expected = dot(weight_row(*source, "blk.1.attn_q_b.weight", key_dim + 2), latent, row);
    EXPECT_NEAR(head1.at(row, 2), expected, 1e-5 + 1e-4 * std::abs(expected));
  }
}

TEST(ActivationObserver, GroupsOfTheOutputProjectionFeedTheSecondOne) {
  const auto source = open("tiny-v4-flash");
  Recorder seen;
  run(*source, seen, texts(1, 40));
  const Recorder::Rows& low = seen.of("blk.1.attn_output_b.weight");
  int64_t n_groups = 0;
  while (seen.seen.contains({"blk.1.attn_output_a.weight", n_groups})) ++n_groups;
  ASSERT_GT(n_groups, 1);
  const int64_t rank = low.n_columns / n_groups;
  for (int64_t group = 0; group < n_groups; ++group) {
    const std::vector<float> w = weight_row(*source, "blk.1.attn_output_a.weight", group * rank + 1);
    const double expected = low.at(33, group * rank + 1);
    EXPECT_NEAR(dot(w, seen.of("blk.1.attn_output_a.weight", group), 33), expected, 1e-5 + 1e-4 * std::abs(expected));
  }
}

TEST(ActivationObserver, ExpertsSeeTheirTokensWithTheirShares) {
  const auto source = open("mini-qwen3moe");
  Recorder seen;
  run(*source, seen, texts(2, 40));
  const int64_t n_experts = source->metadata().get_int("qwen3moe.expert_count");
  int64_t n_rows = 0;
  double shares = 0;
  for (int64_t e = 0; e < n_experts; ++e) {
    if (!seen.seen.contains({"blk.0.ffn_down_exps.weight", e})) continue;
    const Recorder::Rows& rows = seen.of("blk.0.ffn_down_exps.weight", e);
    EXPECT_EQ(static_cast<int64_t>(rows.shares.size()), rows.n_rows());
    EXPECT_EQ(seen.of("blk.0.ffn_up_exps.weight", e).n_rows(), rows.n_rows());
    n_rows += rows.n_rows();
    for (const float share : rows.shares) shares += static_cast<double>(share);
  }
  EXPECT_EQ(n_rows, 80 * source->metadata().get_int("qwen3moe.expert_used_count"));
  EXPECT_NEAR(shares, 80.0, 1e-3) << "the shares of a token add up to one";
}

Imatrix collect(const ModelSource& source, const std::vector<Sequence>& sequences, int threads, uint64_t memory) {
  const ThreadLimit limit(threads);
  ImatrixCollector collector(source.tensors());
  run(source, collector, sequences, memory);
  return collector.take();
}

TEST(ImatrixCollector, SumsTheSquaresOfWhatAnObserverSees) {
  const auto source = open("tiny-v4-flash");
  Recorder seen;
  run(*source, seen, texts(2, 40));
  const Imatrix imatrix = collect(*source, texts(2, 40), 2, uint64_t{8} << 30);
  for (const auto& [key, rows] : seen.seen) {
    const auto& [weight, slice] = key;
    const ImatrixEntry* entry = imatrix.find(weight + ".groups");
    if (entry == nullptr) entry = imatrix.find(weight);
    ASSERT_NE(entry, nullptr) << weight;
    const int64_t s = std::max<int64_t>(slice, 0);
    EXPECT_EQ(entry->counts[static_cast<size_t>(s)], rows.n_rows()) << weight;
    double sum = 0;
    for (int64_t i = 0; i < rows.n_rows(); ++i) sum += rows.at(i, 1) * rows.at(i, 1);
    EXPECT_EQ(entry->sums[static_cast<size_t>(s * entry->n_columns + 1)], static_cast<float>(sum)) << weight << " slice " << slice;
  }
}

TEST(ImatrixCollector, GivesTheSameBitsWhateverThreadsAndMemory) {
  for (const char* const model : {"mini-v3", "mini-v4", "mini-qwen3moe"}) {
    const auto source = open(model);
    const std::vector<Sequence> sequences = texts(3, 100);
    const Imatrix first = collect(*source, sequences, 1, uint64_t{8} << 30);
    const Imatrix second = collect(*source, sequences, 8, uint64_t{8} << 30);
    ASSERT_EQ(first.entries.size(), second.entries.size());
    for (size_t i = 0; i < first.entries.size(); ++i) {
      EXPECT_EQ(first.entries[i].name, second.entries[i].name);
      EXPECT_EQ(first.entries[i].sums, second.entries[i].sums) << model << " " << first.entries[i].name;
      EXPECT_EQ(first.entries[i].counts, second.entries[i].counts);
    }
  }
}

TEST(ImatrixCollector, CoversEveryTensorThatIsQuantized) {
  for (const char* const model : {"mini-llama3", "mini-mixtral", "mini-qwen2", "mini-qwen3", "mini-qwen3moe", "mini-v3", "mini-v4"}) {
    const auto source = open(model);
    const Importance importance(collect(*source, texts(2, 60), 2, uint64_t{8} << 30), source->tensors());
    bool tied = true;
    for (const LogicalTensor& tensor : source->tensors()) tied = tied && tensor.name != "output.weight";
    for (size_t t = 0; t < source->tensors().size(); ++t) {
      const LogicalTensor& tensor = source->tensors()[t];
      if (tensor.keep != Keep::kMix) continue;
      EXPECT_EQ(importance.covers(t), tensor.role != Role::kTokenEmbedding || tied) << model << " " << tensor.name;
    }
    for (const ImportanceFinding& finding : importance.findings()) {
      const bool expected = finding.issue == ImportanceIssue::kUnseen || finding.issue == ImportanceIssue::kFewRows ||
                            finding.issue == ImportanceIssue::kLittleText ||
                            (finding.issue == ImportanceIssue::kNoEntry && !finding.serious);
      EXPECT_TRUE(expected) << model << ": " << finding.message;
    }
  }
}

}  // namespace
}  // namespace quern
