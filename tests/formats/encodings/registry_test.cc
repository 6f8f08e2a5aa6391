#include "formats/encodings/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/arch/config.h"
#include "tests/formats/checkpoint_builder.h"
#include "tests/formats/expect_error.h"

namespace quern::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ModelConfig with_quantization(const std::string& fields) {
  return ModelConfig::parse(R"({"torch_dtype": "bfloat16", "quantization_config": {)" + fields + "}}");
}

TEST(EncodingRegistry, RefusesMethodsThatItDoesNotKnowByName) {
  EXPECT_ERROR(
      encodings::refuse_unknown_method(with_quantization(R"("quant_method": "gptq", "bits": 4)")), ErrorKind::kUnsupported,
      "config.json: quantization_config has quant_method 'gptq', known are 'fp8' and 'mxfp4'; a checkpoint of this model in one of these");
  EXPECT_ERROR(encodings::refuse_unknown_method(with_quantization(R"("bits": 4)")), ErrorKind::kUnsupported, "has quant_method ''");
  EXPECT_NO_THROW(encodings::refuse_unknown_method(with_quantization(R"("quant_method": "fp8")")));
  EXPECT_NO_THROW(encodings::refuse_unknown_method(ModelConfig::parse("{}")));
}

TEST(EncodingRegistry, ChecksTheNumbersOfTheConfig) {
  EXPECT_ERROR(encodings::check_config(with_quantization(R"("weight_block_size": [128])")), ErrorKind::kFormat,
               "config.json: weight_block_size has 1 numbers, expected rows and columns");
  EXPECT_ERROR(encodings::check_config(ModelConfig::parse(R"({"quantization": {"bits": 4}})")), ErrorKind::kUnsupported, "MLX");
}

TEST(EncodingRegistry, TellsWhatTheConfigAlonePromises) {
  LogicalTensor expert;
  expert.role = Role::kRoutedExpert;
  expert.layer = 3;
  expert.shape = {4, 64, 64};
  LogicalTensor attention = expert;
  attention.role = Role::kAttention;
  attention.shape = {64, 64};
  const auto promise = [](const std::string& fields, const LogicalTensor& tensor) {
    return encodings::promise(with_quantization(fields), tensor, DType::BF16);
  };
  EXPECT_EQ(promise(R"("quant_method": "mxfp4")", expert).type, DType::MXFP4);
  EXPECT_EQ(promise(R"("quant_method": "mxfp4")", attention).type, DType::BF16);
  EXPECT_THAT(promise(R"("quant_method": "mxfp4")", attention).inexact, IsEmpty());
  EXPECT_EQ(promise(R"("quant_method": "fp8")", attention).type, DType::BF16);
  EXPECT_EQ(promise(R"("quant_method": "fp8")", attention).inexact,
            "FP8 weights, and config.json does not say that their scales are powers of two");
  EXPECT_THAT(promise(R"("quant_method": "fp8", "scale_fmt": "ue8m0")", attention).inexact, IsEmpty());
  attention.layer = -1;
  EXPECT_THAT(promise(R"("quant_method": "fp8")", attention).inexact, IsEmpty());
}

TEST(EncodingRegistry, KnowsTheWeightsOfACompanion) {
  EXPECT_THAT(encodings::weights_of("a.weight_scale_inv"), testing::Contains("a.weight"));
  EXPECT_THAT(encodings::weights_of("a.scale"), testing::Contains("a.weight"));
  EXPECT_THAT(encodings::weights_of("a_scales"), ElementsAre("a_blocks"));
  EXPECT_THAT(encodings::weights_of("a.weight"), IsEmpty());
}

// A file that holds the transposed matrix: [3 groups of columns, 10 rows] of two bytes each.
TEST(EncodingPlane, CountsUnitsAndStripes) {
  const encodings::Plane words{.unit_rows = 4, .unit_bytes = 8, .n_units = 3, .n_stripes = 3};
  EXPECT_EQ(words.first_unit(7), 1);
  EXPECT_EQ(words.units_of(3, 1), 1);
  EXPECT_EQ(words.units_of(3, 2), 2);
  EXPECT_EQ(words.units_of(0, 10), 3);
  EXPECT_EQ(words.bytes_of(3, 2), 3U * 2 * 8);

  encodings::EncodedTensor tensor;
  tensor.add(words);
  const Bytes bytes(words.bytes_of(3, 6));
  const encodings::Tile tile{3, 6, {bytes.data()}};
  EXPECT_EQ(tile.unit(tensor, 0, 3) - bytes.data(), 0);
  EXPECT_EQ(tile.unit(tensor, 0, 8) - bytes.data(), 2 * 8);
  EXPECT_EQ(tile.unit(tensor, 0, 4, 2) - bytes.data(), 2 * 3 * 8 + 8);
}

}  // namespace
}  // namespace quern::test
