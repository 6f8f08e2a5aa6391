#include "quantize/plain/encode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "formats/base/bytes.h"
#include "formats/base/error.h"
#include "formats/types/blocks.h"
#include "formats/types/codebooks.h"
#include "formats/types/decode.h"
#include "formats/types/float_convert.h"
#include "quantize/plain/encoders.h"

namespace quern {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(QUERN_TEST_DATA) / "golden-blocks";
constexpr int64_t kGoldenCols = 512;

std::vector<float> read_floats(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::vector<float> values(std::filesystem::file_size(path) / sizeof(float));
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

std::vector<DType> types_with_encoders() {
  return {DType::F32, DType::F16, DType::BF16,
#define QUERN_LIST(name, revision, feedback, bytes) DType::name,
          QUERN_ENCODERS(QUERN_LIST)
#undef QUERN_LIST
  };
}

std::vector<std::byte> encode(DType dtype, const std::vector<float>& x, int64_t n_cols, const std::vector<float>& importance = {}) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<std::byte> blocks(static_cast<size_t>(n / traits(dtype).block_weights * traits(dtype).block_bytes));
  encode_rows(dtype, x, n / n_cols, n_cols, importance, blocks);
  return blocks;
}

std::vector<float> decode(DType dtype, const std::vector<std::byte>& blocks) {
  std::vector<float> y(blocks.size() / static_cast<size_t>(traits(dtype).block_bytes) * static_cast<size_t>(traits(dtype).block_weights));
  decode_blocks(dtype, blocks, y);
  return y;
}

// sum h (x - y)^2 with h = 1 where importance is empty.
double squared_error(const std::vector<float>& x, const std::vector<float>& y, const std::vector<float>& importance = {}) {
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double rest = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += rest * rest * (importance.empty() ? 1.0 : static_cast<double>(importance[i % importance.size()]));
  }
  return sum;
}

std::vector<float> student_t(size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::student_t_distribution<double> distribution(5.0);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(0.02 * distribution(random));
  return values;
}

class Encode : public testing::TestWithParam<DType> {};

// The reference is ggml's encoder on the same input: per variant its plain and its importance-weighted squared error.
TEST_P(Encode, IsNoWorseThanTheReferenceOnTheGoldenInput) {
  if (GetParam() == DType::F32) GTEST_SKIP() << "exact, not in the index";
  const std::vector<float> x = read_floats(kGolden / "input.f32");
  const std::vector<float> importance = read_floats(kGolden / "importance.f32");
  const nlohmann::json index = nlohmann::json::parse(std::ifstream(kGolden / "index.json"));
  const nlohmann::json variants = index.at("types").at(std::string(name_of(GetParam()))).at("variants");
  constexpr double kRounding = 1.0 + 1e-9;  // the recorded figures are doubles printed in decimal

  if (variants.contains("noim")) {
    const std::vector<float> y = decode(GetParam(), encode(GetParam(), x, kGoldenCols));
    double reference = 0.0;
    for (const double rmse : variants["noim"]["rmse_per_row"]) reference += rmse * rmse * static_cast<double>(kGoldenCols);
    EXPECT_LE(squared_error(x, y), reference * kRounding) << "without importance";
    EXPECT_LE(squared_error(x, y, importance), variants["noim"]["weighted_sse"].get<double>() * kRounding)
        << "without importance, weighted afterwards";
  }
  // Types whose reference ignores importance have no such variant: ours must still beat what the reference would write.
  const nlohmann::json& weighted = variants.contains("im") ? variants["im"] : variants["noim"];
  const std::vector<float> y = decode(GetParam(), encode(GetParam(), x, kGoldenCols, importance));
  EXPECT_LE(squared_error(x, y, importance), weighted["weighted_sse"].get<double>() * kRounding) << "with importance";
}

// Fast may lose a few percent, best never more than what its other local minima bring by chance.
TEST_P(Encode, GetsNearerWithMoreEffort) {
  const std::vector<float> x = student_t(32 * 512, 5);
  const std::vector<float> importance = read_floats(kGolden / "importance.f32");
  double errors[3];
  for (const Effort effort : {Effort::kFast, Effort::kDefault, Effort::kBest}) {
    std::vector<std::byte> blocks(encode(GetParam(), x, 512).size());
    encode_rows(GetParam(), x, 32, 512, importance, blocks, effort);
    errors[static_cast<size_t>(effort)] = squared_error(x, decode(GetParam(), blocks), importance);
  }
  EXPECT_LE(errors[1], errors[0]);
  EXPECT_LE(errors[2], errors[1]);
  EXPECT_LE(errors[0], 1.08 * errors[1]);
}

TEST(Effort, HasNames) {
  for (const Effort effort : {Effort::kFast, Effort::kDefault, Effort::kBest}) EXPECT_EQ(find_effort(name_of(effort)), effort);
  EXPECT_EQ(find_effort("slow"), std::nullopt);
}

TEST_P(Encode, MakesTheSameBytesForEverySplitOfTheRows) {
  const std::vector<float> x = student_t(40 * 512, 1);
  const std::vector<float> importance = read_floats(kGolden / "importance.f32");
  const std::vector<std::byte> whole = encode(GetParam(), x, 512, importance);
  std::vector<std::byte> pieces;
  for (const auto& [first, end] : {std::pair{0, 1}, {1, 20}, {20, 40}}) {
    const std::vector<float> rows(x.begin() + first * 512, x.begin() + end * 512);
    const std::vector<std::byte> part = encode(GetParam(), rows, 512, importance);
    pieces.insert(pieces.end(), part.begin(), part.end());
  }
  EXPECT_EQ(whole, pieces);
}

// Rows that searches stumble over. Each must give finite scales, finite weights, and zero for zero.
TEST_P(Encode, NeverWritesNonFiniteBlocksForFiniteInput) {
  constexpr size_t n = 512;
  const float huge = std::numeric_limits<float>::max();
  const float denormal = std::numeric_limits<float>::denorm_min();
  std::vector<std::vector<float>> rows;
  for (const float constant :
       {0.0f, -0.0f, 1.0f, -1.0f, 0.1f, 65504.0f, -1e6f, 1e30f, huge, -huge, denormal, 1e-40f, 1e-30f, 6e-8f, 3e-8f}) {
    rows.emplace_back(n, constant);
  }
  for (const float outlier : {huge, -huge, denormal, 1e-20f, 70000.0f, 1e-7f}) {
    rows.emplace_back(n, 0.0f);
    rows.back()[37] = outlier;
    rows.push_back(student_t(n, 3));
    rows.back()[300] = outlier;
  }
  for (const float scale : {1e-45f, 1e-38f, 1e-7f, 1e6f, 1e30f, 1e36f}) {
    rows.push_back(student_t(n, 5));
    for (float& value : rows.back()) value *= scale * 50;
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<std::vector<float>> importances = {
        {}, std::vector<float>(n, 0.0f), std::vector<float>(n, huge), std::vector<float>(n, denormal)};
    importances.push_back(std::vector<float>(n, 0.0f));
    importances.back()[100] = 1.0f;  // one block has some, the others none
    for (size_t k = 0; k < importances.size(); ++k) {
      const std::vector<std::byte> blocks = encode(GetParam(), rows[i], n, importances[k]);
      ASSERT_EQ(find_nonfinite_block(GetParam(), blocks), -1) << "row " << i << " importance " << k;
      for (const float y : decode(GetParam(), blocks)) ASSERT_TRUE(std::isfinite(y)) << "row " << i << " importance " << k;
      if (i < 2) {
        for (const float y : decode(GetParam(), blocks)) ASSERT_EQ(y, 0.0f) << "row " << i;
      }
    }
  }
}

// A (sub-)block that calibration never saw counts uniformly instead of collapsing to zero.
TEST_P(Encode, TreatsBlocksWithoutImportanceAsUniform) {
  const std::vector<float> x = student_t(1024, 9);
  std::vector<float> importance(1024, 1.0f);
  for (size_t i = 512; i < 1024; ++i) importance[i] = 0.0f;
  for (size_t i = 64; i < 96; ++i) importance[i] = 0.0f;
  const std::vector<float> uniform = decode(GetParam(), encode(GetParam(), x, 1024));
  const std::vector<float> partial = decode(GetParam(), encode(GetParam(), x, 1024, importance));
  const auto error_in = [&](const std::vector<float>& y, size_t first, size_t end) {
    return squared_error({x.begin() + static_cast<ptrdiff_t>(first), x.begin() + static_cast<ptrdiff_t>(end)},
                         {y.begin() + static_cast<ptrdiff_t>(first), y.begin() + static_cast<ptrdiff_t>(end)});
  };
  EXPECT_EQ(error_in(partial, 512, 1024), error_in(uniform, 512, 1024));
  // The super-block's d follows the weights that matter, so the unseen sub-block may lose a little.
  EXPECT_LE(error_in(partial, 64, 96), 2.0 * error_in(uniform, 64, 96) + 1e-12);
}

TEST_P(Encode, FollowsImportance) {
  if (traits(GetParam()).block_weights == 1) GTEST_SKIP() << "weights are independent";
  const std::vector<float> x = student_t(4096, 11);
  std::vector<float> importance(1024);
  std::mt19937_64 random(2);
  std::normal_distribution<double> normal;
  for (float& h : importance) h = static_cast<float>(std::exp(normal(random)));
  const double plain = squared_error(x, decode(GetParam(), encode(GetParam(), x, 1024)), importance);
  const double weighted = squared_error(x, decode(GetParam(), encode(GetParam(), x, 1024, importance)), importance);
  EXPECT_LT(weighted, plain);
}

INSTANTIATE_TEST_SUITE_P(EveryType, Encode, testing::ValuesIn(types_with_encoders()),
                         [](const auto& type) { return std::string(name_of(type.param)); });

TEST(EncodeRows, RefusesTypesWithoutAnEncoder) {
  EXPECT_FALSE(has_encoder(DType::I8));
  EXPECT_EQ(encoder_revision(DType::I8), 0);
  std::byte out[1];
  const float x[] = {1.0f};
  EXPECT_THROW(encode_rows(DType::I8, x, 1, 1, {}, out), Error);
}

TEST(EncodeRows, ClampsWeightsBeyondTheRangeOfF16AndBf16) {
  const std::vector<float> x = {1e9f, -1e9f, std::numeric_limits<float>::max(), 65519.0f, 65520.0f};
  const std::vector<float> f16 = decode(DType::F16, encode(DType::F16, x, 5));
  EXPECT_EQ(f16, (std::vector<float>{65504.0f, -65504.0f, 65504.0f, 65504.0f, 65504.0f}));
  EXPECT_EQ(decode(DType::BF16, encode(DType::BF16, x, 5))[2], 0x1.FEp127f);
}

// Blocks that are MXFP4 already (FP4 checkpoints that went through floats) come back with every value unchanged, at every exponent.
TEST(EncodeMxfp4, KeepsRepresentableBlocksExactly) {
  std::mt19937 random(4);
  for (int e = 0; e < 255; ++e) {
    for (const int magnitudes : {2, 4, 8}) {  // also blocks that use only the small codes
      BlockMXFP4 block{static_cast<uint8_t>(e), {}};
      for (uint8_t& q : block.qs) {
        const auto code = [&] { return static_cast<unsigned>(random() % static_cast<unsigned>(magnitudes)) | (random() & 8u); };
        q = static_cast<uint8_t>(code() | code() << 4);
      }
      std::vector<float> x(32);
      decode_blocks(DType::MXFP4, std::as_bytes(std::span(&block, 1)), x);
      if (!std::isfinite(*std::ranges::max_element(x)) || !std::isfinite(*std::ranges::min_element(x))) continue;
      EXPECT_EQ(decode(DType::MXFP4, encode(DType::MXFP4, x, 32)), x) << "exponent " << e;
    }
  }
}

// Weights that are ternary already, as the makers of such models publish them, lose nothing.
TEST(EncodeTernary, KeepsTernaryWeights) {
  std::mt19937 random(6);
  std::vector<float> x(1024);
  for (size_t i = 0; i < x.size(); ++i) {
    const float d = f16_to_f32(static_cast<uint16_t>(0x2000 + 37 * (i / 256)));
    x[i] = d * static_cast<float>(static_cast<int>(random() % 3) - 1);
  }
  EXPECT_EQ(decode(DType::TQ1_0, encode(DType::TQ1_0, x, 1024)), x);
  EXPECT_EQ(decode(DType::TQ2_0, encode(DType::TQ2_0, x, 1024)), x);
}

// The four levels -1, 0, 1, 2 lie on either side of zero as d has either sign; blocks that do without the outermost one stay exact too.
TEST(EncodeQ2_0, KeepsItsOwnValues) {
  std::mt19937 random(7);
  std::vector<float> x(4096);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t block = i / 64;
    const float d = f16_to_f32(static_cast<uint16_t>((block % 2) << 15 | (0x2000 + 37 * block)));
    x[i] = d * static_cast<float>(static_cast<int>(random() % (block % 3 == 0 ? 3 : 4)) - 1);
  }
  EXPECT_EQ(decode(DType::Q2_0, encode(DType::Q2_0, x, 1024)), x);
}

// What was decoded from a Q8_0 block is representable; the search must find it again.
TEST(EncodeQ8_0, KeepsRepresentableBlocks) {
  const std::vector<float> x = student_t(4096, 21);
  const std::vector<float> once = decode(DType::Q8_0, encode(DType::Q8_0, x, 4096));
  const std::vector<float> twice = decode(DType::Q8_0, encode(DType::Q8_0, once, 4096));
  EXPECT_LE(squared_error(once, twice), 1e-3 * squared_error(x, once));
}

}  // namespace
}  // namespace quern
