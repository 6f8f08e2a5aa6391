#include "formats/statistics/importance.h"

#include <limits>

#include "tests/formats/expect_error.h"

namespace quern {
namespace {

LogicalTensor tensor(std::string name, Shape shape, Role role = Role::kAttention) {
  LogicalTensor t;
  t.name = std::move(name);
  t.shape = shape;
  t.role = role;
  t.n_slices = role == Role::kRoutedExpert ? shape[0] : 1;
  return t;
}

Imatrix of(std::vector<ImatrixEntry> entries) {
  Imatrix imatrix;
  imatrix.entries = std::move(entries);
  std::ranges::sort(imatrix.entries, {}, &ImatrixEntry::name);
  imatrix.chunk_size = 512;
  return imatrix;
}

std::vector<float> values(const Importance& importance, size_t t, int64_t slice) {
  const auto columns = importance.columns(t, slice);
  return {columns.begin(), columns.end()};
}

const ImportanceFinding* finding(const Importance& importance, ImportanceIssue issue) {
  for (const ImportanceFinding& found : importance.findings()) {
    if (found.issue == issue) return &found;
  }
  return nullptr;
}

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Importance, IsUniformWithoutAMatrix) {
  const Importance none;
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.n_slices(7), 1);
  EXPECT_THAT(none.columns(7, 0), IsEmpty());
}

TEST(Importance, IsTheMeanOfSquares) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.attn_output.weight", {4, 2})};
  const Importance importance(of({{"blk.0.attn_output.weight", 2, 1, {10000, 30000}, {10000}}}), model);
  EXPECT_THAT(values(importance, 0, 0), ElementsAre(1, 3));
  EXPECT_TRUE(importance.findings().empty());
  EXPECT_NO_THROW(importance.require_sound());
}

TEST(Importance, AnExpertThatWasNeverSeenGetsTheMeanOfTheOthers) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.ffn_down_exps.weight", {3, 4, 2}, Role::kRoutedExpert)};
  const Importance importance(of({{"blk.0.ffn_down_exps.weight", 2, 3, {1000, 2000, 0, 0, 9000, 0}, {1000, 0, 9000}}}), model);
  EXPECT_EQ(importance.n_slices(0), 3);
  EXPECT_THAT(values(importance, 0, 1), ElementsAre(1.0f, 0.2f));
  EXPECT_NEAR(importance.columns(0, 0)[1], 2.0, 2e-3) << "drawn to the mean by one row in a thousand";
  EXPECT_GT(importance.columns(0, 2)[1], 0.0f);
  ASSERT_NE(finding(importance, ImportanceIssue::kUnseen), nullptr);
  EXPECT_THAT(finding(importance, ImportanceIssue::kUnseen)->message, HasSubstr("'blk.0.ffn_down_exps.weight expert 1'"));
  EXPECT_ERROR(importance.require_sound(), ErrorKind::kGate, "expert 1");
}

TEST(Importance, OnesInADatAreExpertsThatWereNeverSeen) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.ffn_up_exps.weight", {3, 4, 2}, Role::kRoutedExpert)};
  Imatrix dat = of({{"blk.0.ffn_up_exps.weight", 6, 1, {9, 3, 3, 3, 3, 9}, {3}}});
  dat.format = ImatrixFormat::kDat;
  const Importance importance(std::move(dat), model);
  EXPECT_THAT(values(importance, 0, 0), ElementsAre(3, 1));
  EXPECT_THAT(values(importance, 0, 1), ElementsAre(2, 2));
  EXPECT_THAT(values(importance, 0, 2), ElementsAre(1, 3));
}

TEST(Importance, NoColumnAndNoSliceIsWorthNothing) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.attn_k_b.weight", {2, 4, 2})};
  const Importance importance(of({{"blk.0.attn_k_b.weight", 4, 1, {0, 0, 0, 10000}, {10000}}}), model);
  EXPECT_THAT(values(importance, 0, 0), ElementsAre(1, 1)) << "all zero is uniform";
  EXPECT_THAT(values(importance, 0, 1), ElementsAre(5e-7f, 1.0f));
}

TEST(Importance, SumsThatAreNoSumsOfSquaresAreTakenAsNeverSeen) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<LogicalTensor> model = {tensor("blk.0.ffn_gate_exps.weight", {3, 4, 1}, Role::kRoutedExpert),
                                            tensor("output.weight", {4, 2}, Role::kOutput)};
  const Importance importance(
      of({{"blk.0.ffn_gate_exps.weight", 1, 3, {nan, -2, 6000}, {1000, 1000, 1000}}, {"output.weight", 2, 1, {nan, 5000}, {5000}}}), model);
  EXPECT_THAT(values(importance, 0, 0), ElementsAre(6));
  EXPECT_THAT(values(importance, 0, 1), ElementsAre(6));
  EXPECT_FALSE(importance.covers(1));
  EXPECT_THAT(finding(importance, ImportanceIssue::kBroken)->message, HasSubstr("'output.weight'"));
}

// NaN, nothing but zeros, and no token at all: the entry of the same input stands in for each, as for one that is not there.
TEST(Importance, AnEntryThatSaysNothingIsAsGoodAsNone) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.attn_q.weight", {4, 2}), tensor("blk.0.attn_k.weight", {4, 2})};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const ImatrixEntry sibling{"blk.0.attn_k.weight", 2, 1, {5000, 10000}, {5000}};
  const struct {
    ImatrixEntry entry;
    ImportanceIssue issue;
  } cases[] = {{{"blk.0.attn_q.weight", 2, 1, {nan, 1}, {5000}}, ImportanceIssue::kBroken},
               {{"blk.0.attn_q.weight", 2, 1, {-1, 1}, {5000}}, ImportanceIssue::kBroken},
               {{"blk.0.attn_q.weight", 2, 1, {0, 0}, {5000}}, ImportanceIssue::kBroken},
               {{"blk.0.attn_q.weight", 2, 1, {7, 7}, {0}}, ImportanceIssue::kUnseen}};
  for (const auto& [entry, issue] : cases) {
    const Importance importance(of({entry, sibling}), model);
    EXPECT_THAT(values(importance, 0, 0), ElementsAre(1, 2));
    ASSERT_NE(finding(importance, issue), nullptr);
    EXPECT_THAT(finding(importance, issue)->message, HasSubstr("'blk.0.attn_q.weight'"));
    EXPECT_THAT(finding(importance, issue)->message, testing::Not(HasSubstr("mean of the others")));
    EXPECT_NE(finding(importance, ImportanceIssue::kSubstituted), nullptr);
    EXPECT_ERROR(importance.require_sound(), ErrorKind::kGate, "attn_q");
  }
  // Broken ones stand in for nobody.
  const Importance none(of({{"blk.0.attn_q.weight", 2, 1, {0, 0}, {5000}}, {"blk.0.attn_k.weight", 2, 1, {nan, 0}, {5000}}}), model);
  EXPECT_FALSE(none.covers(0));
  EXPECT_FALSE(none.covers(1));
  EXPECT_THAT(finding(none, ImportanceIssue::kNoEntry)->message, HasSubstr("uniform"));
}

TEST(Importance, AnExpertOfZerosIsBrokenThoughItsTokensWereCounted) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.ffn_down_exps.weight", {2, 4, 2}, Role::kRoutedExpert)};
  const Importance importance(of({{"blk.0.ffn_down_exps.weight", 2, 2, {0, 0, 5000, 10000}, {5000, 5000}}}), model);
  EXPECT_THAT(values(importance, 0, 0), ElementsAre(1, 2));
  EXPECT_THAT(finding(importance, ImportanceIssue::kBroken)->message, HasSubstr("expert 0"));
}

TEST(Importance, AMatrixOfAnotherModelIsRefused) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.attn_output.weight", {4, 2}), tensor("blk.0.ffn_up.weight", {4, 2})};
  EXPECT_ERROR(Importance(of({{"blk.0.attn_out.weight", 2, 1, {1, 2}, {1}}}), model), ErrorKind::kFormat, "another model");
  EXPECT_ERROR(Importance(of({{"blk.0.attn_output.weight", 2, 1, {1, 2}, {1}}, {"blk.0.ffn_up.weight", 3, 1, {1, 2, 3}, {1}}}), model),
               ErrorKind::kFormat, "'blk.0.ffn_up.weight'");
}

TEST(Importance, TheGroupsOfAnOutputProjectionComeInThreeForms) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.attn_output_a.weight", {6, 2})};
  const std::string name = model[0].name;
  const Importance concatenated(of({{name, 4, 1, {5000, 10000, 15000, 20000}, {5000}}}), model);
  EXPECT_EQ(concatenated.n_slices(0), 2);
  EXPECT_THAT(values(concatenated, 0, 1), ElementsAre(3, 4));
  const Importance together(of({{name, 2, 1, {5000, 10000}, {5000}}}), model);
  EXPECT_EQ(together.n_slices(0), 1);
  const Importance ours(of({{name, 2, 1, {20000, 30000}, {10000}}, {name + ".groups", 2, 2, {5000, 10000, 15000, 20000}, {5000, 5000}}}),
                        model);
  EXPECT_EQ(ours.n_slices(0), 2);
  EXPECT_THAT(values(ours, 0, 0), ElementsAre(1, 2));
  EXPECT_TRUE(ours.findings().empty());
}

TEST(Importance, OneFormOfMlaSpeaksForTheOther) {
  const std::vector<LogicalTensor> split = {tensor("blk.0.attn_k_b.weight", {2, 3, 4}), tensor("blk.0.attn_v_b.weight", {2, 4, 3}),
                                            tensor("blk.0.attn_output.weight", {4, 1})};
  const ImatrixEntry output{"blk.0.attn_output.weight", 1, 1, {5000}, {5000}};
  const Importance of_joint(of({{"blk.0.attn_kv_b.weight", 3, 1, {5000, 10000, 15000}, {5000}}, output}), split);
  EXPECT_FALSE(of_joint.covers(0));
  EXPECT_EQ(of_joint.n_slices(1), 2);
  EXPECT_THAT(values(of_joint, 1, 1), ElementsAre(1, 2, 3));
  EXPECT_THAT(finding(of_joint, ImportanceIssue::kNoEntry)->message, HasSubstr("'blk.0.attn_k_b.weight'"));

  const std::vector<LogicalTensor> joint = {tensor("blk.0.attn_kv_b.weight", {14, 3}), tensor("blk.0.attn_output.weight", {4, 1})};
  const Importance of_split(of({{"blk.0.attn_v_b.weight", 6, 1, {5000, 10000, 15000, 15000, 10000, 5000}, {5000}}, output}), joint);
  EXPECT_THAT(values(of_split, 0, 0), ElementsAre(2, 2, 2));
  EXPECT_NE(finding(of_split, ImportanceIssue::kSubstituted), nullptr);
}

TEST(Importance, MatricesWithTheSameInputSpeakForEachOther) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.ffn_up_exps.weight", {2, 4, 1}, Role::kRoutedExpert),
                                            tensor("blk.0.ffn_gate_exps.weight", {2, 4, 1}, Role::kRoutedExpert)};
  const Importance importance(of({{"blk.0.ffn_up_exps.weight", 1, 2, {5000, 10000}, {5000, 5000}}}), model);
  EXPECT_EQ(values(importance, 1, 1), values(importance, 0, 1));
  EXPECT_NO_THROW(importance.require_sound());
}

TEST(Importance, LittleTextIsSaid) {
  const std::vector<LogicalTensor> model = {tensor("blk.0.attn_output.weight", {4, 1})};
  const Importance importance(of({{"blk.0.attn_output.weight", 1, 1, {1024}, {1024}}}), model);
  EXPECT_THAT(finding(importance, ImportanceIssue::kLittleText)->message, HasSubstr("1024 tokens"));
}

}  // namespace
}  // namespace quern
