#include "quantize/feedback/unbiased.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "formats/types/decode.h"
#include "quantize/plain/encoders.h"

namespace quern {
namespace {

constexpr int64_t kRows = 3;
constexpr int64_t kCols = 512;

struct Encoded {
  std::vector<std::byte> blocks;
  std::vector<float> y;
};

template <typename Encode>
Encoded encode(Encode encoder, DType dtype, const std::vector<float>& x, const std::vector<float>& importance) {
  Encoded result;
  result.blocks.resize(x.size() / static_cast<size_t>(traits(dtype).block_weights) * static_cast<size_t>(traits(dtype).block_bytes));
  encoder(dtype, x, static_cast<int64_t>(x.size()) / kCols, kCols, importance, result.blocks, Effort::kDefault);
  result.y.resize(x.size());
  decode_blocks(dtype, result.blocks, result.y);
  return result;
}

std::vector<float> random_rows(uint64_t seed, bool positive = false) {
  std::mt19937_64 random(seed);
  std::student_t_distribution<double> student(5.0);
  std::vector<float> values(positive ? kCols : kRows * kCols);
  for (float& value : values) value = static_cast<float>(positive ? std::fabs(student(random)) : 0.02 * student(random));
  return values;
}

bool keeps_length(DType dtype) { return bits_per_weight(dtype) < 5.0 && dtype != DType::MXFP4; }

class Unbiased : public testing::TestWithParam<DType> {};

TEST_P(Unbiased, KeepsTheLengthOfEveryBlock) {
  const std::vector<float> x = random_rows(1);
  const std::vector<float> h = random_rows(2, true);
  const auto n = static_cast<size_t>(traits(GetParam()).block_weights);
  for (const std::vector<float>& importance : {std::vector<float>(), h}) {
    const Encoded nearest = encode(encode_rows, GetParam(), x, importance);
    const Encoded kept = encode(encode_rows_unbiased, GetParam(), x, importance);
    if (!keeps_length(GetParam())) {
      EXPECT_EQ(kept.blocks, nearest.blocks);
      continue;
    }
    for (size_t first = 0; first < x.size(); first += n) {
      double xx = 0.0, xy = 0.0;
      for (size_t j = first; j < first + n; ++j) {
        const double weight = importance.empty() ? 1.0 : static_cast<double>(importance[j % kCols]);
        xx += weight * static_cast<double>(x[j]) * static_cast<double>(x[j]);
        xy += weight * static_cast<double>(x[j]) * static_cast<double>(kept.y[j]);
      }
      // The scale and the offset are rounded to 11 bits; where the offset is large the two roundings add up.
      EXPECT_NEAR(xy / xx, 1.0, 0x1p-9) << "block " << first / n;
    }
  }
}

TEST_P(Unbiased, MakesTheSameBytesForEverySplitOfTheRows) {
  const std::vector<float> x = random_rows(3);
  const std::vector<float> h = random_rows(4, true);
  const std::vector<std::byte> whole = encode(encode_rows_unbiased, GetParam(), x, h).blocks;
  std::vector<std::byte> pieces;
  for (size_t row = 0; row < kRows; ++row) {
    const std::vector<float> one(x.begin() + static_cast<ptrdiff_t>(row * kCols), x.begin() + static_cast<ptrdiff_t>((row + 1) * kCols));
    const std::vector<std::byte> part = encode(encode_rows_unbiased, GetParam(), one, h).blocks;
    pieces.insert(pieces.end(), part.begin(), part.end());
  }
  EXPECT_EQ(whole, pieces);
}

TEST_P(Unbiased, StaysFiniteAndKeepsZeros) {
  const float huge = std::numeric_limits<float>::max();
  std::vector<std::vector<float>> rows(8, std::vector<float>(kRows * kCols, 0.0f));
  rows[1].assign(rows[1].size(), huge);
  rows[2].assign(rows[2].size(), std::numeric_limits<float>::denorm_min());
  rows[3][37] = huge;
  rows[4][37] = 1e-20f;
  rows[5] = random_rows(5);
  rows[5][300] = 70000.0f;
  rows[6].assign(rows[6].size(), 6e-8f);
  rows[7] = random_rows(6);
  for (const std::vector<float>& row : rows) {
    for (const std::vector<float>& importance :
         {std::vector<float>(), std::vector<float>(kCols, 0.0f), std::vector<float>(kCols, huge), random_rows(7, true)}) {
      const Encoded kept = encode(encode_rows_unbiased, GetParam(), row, importance);
      ASSERT_EQ(find_nonfinite_block(GetParam(), kept.blocks), -1);
      for (size_t i = 0; i < row.size(); ++i) {
        ASSERT_TRUE(std::isfinite(kept.y[i]));
        if (&row == &rows.front()) {
          ASSERT_EQ(kept.y[i], 0.0f);
        }
      }
    }
  }
}

// A block that its type holds exactly has lost no length.
TEST_P(Unbiased, LeavesExactBlocksAlone) {
  const std::vector<float> x = encode(encode_rows, GetParam(), random_rows(8), {}).y;
  const Encoded nearest = encode(encode_rows, GetParam(), x, {});
  const Encoded kept = encode(encode_rows_unbiased, GetParam(), x, {});
  const auto n = static_cast<ptrdiff_t>(traits(GetParam()).block_weights);
  for (auto first = x.begin(); first != x.end(); first += n) {
    const ptrdiff_t at = first - x.begin();
    if (!std::equal(first, first + n, nearest.y.begin() + at)) continue;
    EXPECT_TRUE(std::equal(first, first + n, kept.y.begin() + at)) << "block " << at / n;
  }
}

std::vector<DType> block_types() {
  return {
#define QUERN_LIST(name, revision, feedback, bytes) DType::name,
      QUERN_ENCODERS(QUERN_LIST)
#undef QUERN_LIST
  };
}

INSTANTIATE_TEST_SUITE_P(EveryType, Unbiased, testing::ValuesIn(block_types()),
                         [](const auto& type) { return std::string(name_of(type.param)); });

}  // namespace
}  // namespace quern
