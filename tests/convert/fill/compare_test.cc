#include "convert/fill/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "formats/types/float_convert.h"
#include "quantize/plain/encode.h"
#include "tests/formats/builders.h"

namespace quern {
namespace {

std::vector<float> random_weights(size_t n) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 0.02F);
  std::vector<float> weights(n);
  for (float& weight : weights) weight = normal(random);
  return weights;
}

TEST(Compare, GivesTheSquaredErrorOfTheDecodedBlocks) {
  const int64_t n_cols = 9216;  // longer than one piece
  const std::vector<float> x = random_weights(3 * static_cast<size_t>(n_cols));
  test::Bytes blocks(3 * row_size_bytes(DType::BF16, n_cols));
  encode_rows(DType::BF16, x, 3, n_cols, {}, blocks);
  double expected = 0;
  for (const float weight : x) {
    const double difference = static_cast<double>(weight) - static_cast<double>(bf16_to_f32(f32_to_bf16(weight)));
    expected += difference * difference;
  }
  const Comparison found = compare_encoded(DType::BF16, blocks, x, n_cols);
  EXPECT_NEAR(found.squared_error.value(), expected, 1e-12 * expected);
  EXPECT_FALSE(found.exact);
  EXPECT_EQ(found.nonfinite_row, -1);
}

TEST(Compare, TellsMinusZeroFromZero) {
  const std::vector<float> x = {0.0F, 1.0F};
  const test::Bytes same = test::floats_to_bytes({0.0F, 1.0F}), other = test::floats_to_bytes({-0.0F, 1.0F});
  EXPECT_TRUE(compare_encoded(DType::F32, same, x, 2).exact);
  const Comparison found = compare_encoded(DType::F32, other, x, 2);
  EXPECT_FALSE(found.exact);
  EXPECT_EQ(found.squared_error.value(), 0);
}

// What a type made of F16 cannot hold.
TEST(Compare, CountsWeightsThatWereCut) {
  const auto cut = [](DType type, std::vector<float> x, int64_t n_cols) {
    test::Bytes blocks(x.size() / static_cast<size_t>(n_cols) * row_size_bytes(type, n_cols));
    encode_rows(type, x, static_cast<int64_t>(x.size()) / n_cols, n_cols, {}, blocks);
    return compare_encoded(type, blocks, x, n_cols).cut;
  };
  std::vector<float> x = random_weights(512);
  for (const DType type : {DType::F16, DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::BF16}) EXPECT_EQ(cut(type, x, 256).n, 0);
  x[3] = 65504.0F;
  x[300] = -65519.0F;  // rounds to -65504
  for (const DType type : {DType::F16, DType::Q4_0, DType::Q8_0}) EXPECT_EQ(cut(type, x, 256).n, 0) << name_of(type);
  x[3] = 65520.0F;
  EXPECT_EQ(cut(DType::F16, x, 256).n, 1);
  EXPECT_EQ(cut(DType::F16, x, 256).largest, 65520.0);
  EXPECT_EQ(cut(DType::Q8_0, x, 256).n, 0) << "eight bits times a scale reach further";
  x[300] = -3e38F;
  x[301] = 1e6F;
  EXPECT_EQ(cut(DType::F16, x, 256).n, 3);
  for (const DType type : {DType::F16, DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q6_K, DType::IQ4_XS})
    EXPECT_FLOAT_EQ(static_cast<float>(cut(type, x, 256).largest), -3e38F) << name_of(type);
  for (const DType type : {DType::F32, DType::BF16, DType::MXFP4}) EXPECT_EQ(cut(type, x, 256).n, 0) << name_of(type);
}

TEST(Compare, NamesTheFirstRowThatIsNotFinite) {
  const std::vector<float> x = {1, 2, 3, 4, 5, 6};
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(compare_encoded(DType::F32, test::floats_to_bytes({1, 2, 3, inf, 5, NAN}), x, 2).nonfinite_row, 1);
  ExactSum energy;
  EXPECT_EQ(add_energy(std::vector<float>{1, 2, NAN, 4}, 2, energy), 1);
  EXPECT_EQ(energy.value(), 5);
}

}  // namespace
}  // namespace quern
