#include "quantize/feedback/feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "formats/base/error.h"
#include "formats/base/parallel.h"
#include "formats/types/decode.h"
#include "quantize/feedback/feedback_tile.h"
#include "tests/formats/on_every_target.h"

namespace quern {
namespace {

// Second moments of inputs that share a few strong directions and differ in size, as those of language models do.
SecondMoment correlated(int64_t n, int64_t n_rows, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  const int64_t directions = n / 8;
  std::vector<double> mixing(static_cast<size_t>(n * directions));
  for (double& v : mixing) v = normal(random) / std::sqrt(static_cast<double>(directions));
  std::vector<double> size(static_cast<size_t>(n));
  for (double& v : size) v = std::exp(0.5 * normal(random));
  SecondMoment moment;
  moment.n_columns = n;
  moment.n_rows = n_rows;
  std::vector<double> sums(half_position(n, 0));
  std::vector<double> x(static_cast<size_t>(n));
  std::vector<double> z(static_cast<size_t>(directions));
  for (int64_t t = 0; t < n_rows; ++t) {
    for (size_t k = 0; k < z.size(); ++k)
      z[k] = 4.0 * normal(random) * std::exp(-3.0 * static_cast<double>(k) / static_cast<double>(directions));
    double squares = 0.0;
    for (size_t i = 0; i < x.size(); ++i) {
      double sum = 0.5 * normal(random);
      for (size_t k = 0; k < z.size(); ++k) sum += mixing[i * z.size() + k] * z[k];
      x[i] = sum * size[i];
      squares += x[i] * x[i];
    }
    moment.fourth += squares * squares;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) sums[half_position(i, j)] += x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)];
    }
  }
  for (const double sum : sums) moment.half.push_back(static_cast<float>(sum / static_cast<double>(n_rows)));
  return moment;
}

std::vector<float> weights(int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::student_t_distribution<double> student(5.0);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& value : x) value = static_cast<float>(0.02 * student(random));
  return x;
}

std::vector<std::byte> blocks_for(DType dtype, size_t n) {
  const DTypeTraits& type = traits(dtype);
  return std::vector<std::byte>(n / static_cast<size_t>(type.block_weights) * static_cast<size_t>(type.block_bytes));
}

std::vector<DType> feedback_types() {
  std::vector<DType> types = {
#define QUERN_LIST(name, revision, feedback, bytes) DType::name,
      QUERN_ENCODERS(QUERN_LIST)
#undef QUERN_LIST
  };
  std::erase_if(types, [](DType type) { return !has_feedback_encoder(type); });
  return types;
}

std::vector<std::byte> encode(DType dtype, const std::vector<float>& x, const FeedbackFactor& factor) {
  std::vector<std::byte> out = blocks_for(dtype, x.size());
  encode_rows_feedback(dtype, x, static_cast<int64_t>(x.size()) / factor.n_columns, factor.n_columns, factor, Effort::kDefault, out);
  return out;
}

double output_error(DType dtype, const std::vector<float>& x, const std::vector<std::byte>& blocks, const FeedbackFactor& factor) {
  std::vector<float> y(x.size());
  decode_blocks(dtype, blocks, y);
  std::vector<double> errors(x.size() / static_cast<size_t>(factor.n_columns));
  feedback_errors(x, y, static_cast<int64_t>(errors.size()), factor, errors);
  double sum = 0.0;
  for (const double error : errors) sum += error;
  return sum;
}

TEST(Factorise, GivesTheMatrixBack) {
  for (const int64_t n : {1, 5, 64, 100, 256, 300, 544}) {
    const SecondMoment moment = correlated(n, 2 * n + 20, static_cast<uint64_t>(n));
    const FeedbackFactor factor = factorise(moment, 0.01);
    double mean = 0.0;
    for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(moment.half[half_position(i, i)]) / static_cast<double>(n);
    const auto element = [&](int64_t i, int64_t k) {
      const int64_t tile = k / FeedbackFactor::kTile;
      return static_cast<double>(factor.tile(tile)[i * factor.tile_columns(tile) + k - tile * FeedbackFactor::kTile]);
    };
    for (int64_t i = 0; i < n; i += 3) {
      for (int64_t j = 0; j <= i; j += 2) {
        double sum = 0.0;
        for (int64_t k = i; k < n; ++k) sum += element(i, k) * static_cast<double>(factor.d[static_cast<size_t>(k)]) * element(j, k);
        const double expected = static_cast<double>(moment.half[half_position(i, j)]) + (i == j ? 0.01 * mean : 0.0);
        EXPECT_NEAR(sum, expected, 1e-5 * mean) << n << " " << i << " " << j;
      }
    }
  }
}

TEST(Factorise, MakesTheSameBitsWithAnyNumberOfThreads) {
  const SecondMoment moment = correlated(320, 400, 1);
  const FeedbackFactor all = factorise(moment);
  const ThreadLimit one(1);
  const FeedbackFactor alone = factorise(moment);
  EXPECT_EQ(all.r, alone.r);
  EXPECT_EQ(all.d, alone.d);
}

TEST(Factorise, MakesTheSameBitsOnEveryCpu) {
  const SecondMoment moment = correlated(320, 400, 2);
  const FeedbackFactor usual = factorise(moment);
  on_every_target([&] { EXPECT_EQ(factorise(moment).r, usual.r); });
}

TEST(Factorise, DampsMoreWhereTheMatrixIsSingular) {
  SecondMoment moment = correlated(64, 3, 1);
  EXPECT_GT(factorise(moment, 1e-9).damping, 1e-9);
  for (float& value : moment.half) value = 0.0f;  // nothing was ever active
  const FeedbackFactor factor = factorise(moment);
  for (const float d : factor.d) EXPECT_GT(d, 0.0f);
  moment.half[0] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(factorise(moment), Error);
}

TEST(Shrinkage, TrustsManyRowsMoreThanFew) {
  const SecondMoment common = correlated(32, 20000, 1);
  SecondMoment few = correlated(32, 40, 2);
  SecondMoment many = correlated(32, 20000, 2);
  const double with_few = shrink_towards(few, common);
  const double with_many = shrink_towards(many, common);
  EXPECT_GT(with_few, with_many);
  EXPECT_LT(with_many, 0.05);
  SecondMoment none;
  none.n_columns = 32;
  none.half.resize(few.half.size());
  EXPECT_EQ(shrink_towards(none, common), 1.0);
  EXPECT_EQ(none.half, common.half);
}

const SecondMoment& moment_of_512() {
  static const SecondMoment moment = correlated(512, 1200, 3);
  return moment;
}

class Feedback : public testing::TestWithParam<DType> {};

TEST_P(Feedback, LowersTheOutputErrorOfCorrelatedInputs) {
  const SecondMoment& moment = moment_of_512();
  const FeedbackFactor factor = factorise(moment);
  std::vector<float> importance;
  for (int64_t i = 0; i < 512; ++i) importance.push_back(moment.half[half_position(i, i)]);
  const std::vector<float> x = weights(20 * 512, 4);
  std::vector<std::byte> plain = blocks_for(GetParam(), x.size());
  encode_rows(GetParam(), x, 20, 512, importance, plain);
  const double before = output_error(GetParam(), x, plain, factor);
  const double after = output_error(GetParam(), x, encode(GetParam(), x, factor), factor);
  EXPECT_LT(after, 0.6 * before);
}

TEST_P(Feedback, MakesTheSameBytesForEverySplitOfTheRowsAndOnEveryCpu) {
  const FeedbackFactor factor = factorise(moment_of_512());
  const std::vector<float> x = weights(19 * 512, 6);
  const std::vector<std::byte> whole = encode(GetParam(), x, factor);
  std::vector<std::byte> pieces;
  for (const auto& [first, end] : {std::pair{0, 1}, {1, 18}, {18, 19}}) {
    const std::vector<std::byte> part = encode(GetParam(), {x.begin() + first * 512, x.begin() + end * 512}, factor);
    pieces.insert(pieces.end(), part.begin(), part.end());
  }
  EXPECT_EQ(whole, pieces);
  const std::vector<float> row(x.begin(), x.begin() + 512);
  const std::vector<std::byte> usual = encode(GetParam(), row, factor);
  on_every_target([&] { EXPECT_EQ(encode(GetParam(), row, factor), usual); });
}

TEST_P(Feedback, NeverWritesNonFiniteBlocks) {
  static const FeedbackFactor factor = factorise(correlated(256, 300, 7));
  std::vector<float> x;
  for (const float constant : {0.0f, 1.0f, -0.1f, 1e30f, std::numeric_limits<float>::max(), 1e-40f, 70000.0f}) {
    x.insert(x.end(), 256, constant);
    std::vector<float> row = weights(256, 8);
    row[100] = constant;
    x.insert(x.end(), row.begin(), row.end());
  }
  const std::vector<std::byte> blocks = encode(GetParam(), x, factor);
  EXPECT_EQ(find_nonfinite_block(GetParam(), blocks), -1);
  std::vector<float> y(x.size());
  decode_blocks(GetParam(), blocks, y);
  for (size_t i = 0; i < 256; ++i) EXPECT_EQ(y[i], 0.0f);
}

// Rows that are no whole number of tiles.
TEST_P(Feedback, TakesRowsOfAnyNumberOfBlocks) {
  if (traits(GetParam()).block_weights != 32) GTEST_SKIP() << "super-blocks are whole tiles";
  static const FeedbackFactor factor = factorise(correlated(352, 700, 9));
  const std::vector<float> x = weights(3 * 352, 10);
  std::vector<std::byte> plain = blocks_for(GetParam(), x.size());
  encode_rows(GetParam(), x, 3, 352, factor.d, plain);
  EXPECT_LT(output_error(GetParam(), x, encode(GetParam(), x, factor), factor), output_error(GetParam(), x, plain, factor));
}

INSTANTIATE_TEST_SUITE_P(EveryType, Feedback, testing::ValuesIn(feedback_types()),
                         [](const auto& type) { return std::string(name_of(type.param)); });

}  // namespace
}  // namespace quern
