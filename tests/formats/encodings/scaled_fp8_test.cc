#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/checkpoint/checkpoint_source.h"
#include "tests/formats/checkpoint_builder.h"

// FP8 with one scale per tensor, slice or row. Expected values multiply code and scale element by element.

namespace quern::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

constexpr const char* kConfig = R"({"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}})";

struct Form {
  std::string codes;
  Shape shape;
  std::string scales;
  DType scale_type;
  Shape scale_shape;
};

// Codes 0, 3, 6 ... of all finite e4m3 values and scales 1/256, 3/256, 5/256 ...
struct Stored {
  explicit Stored(const Form& form) {
    Bytes bytes;
    for (int64_t i = 0; i < form.shape.n_elements(); ++i) {
      const auto code = static_cast<uint8_t>(3 * i % 127 + (i % 2 == 0 ? 0 : 128));
      bytes.push_back(static_cast<std::byte>(code));
      codes.push_back(e4m3_to_f32(code));
    }
    Bytes scale_bytes;
    for (int64_t i = 0; i < form.scale_shape.n_elements(); ++i) {
      scales.push_back(static_cast<float>(2 * i + 1) / 256);
      append(scale_bytes,
             form.scale_type == DType::F32 ? floats_to_bytes({scales.back()}) : values_to_bytes<uint16_t>({f32_to_bf16(scales.back())}));
    }
    model.add_raw(form.codes, DType::F8_E4M3, form.shape, bytes);
    model.add_raw(form.scales, form.scale_type, form.scale_shape, scale_bytes);
  }

  CheckpointSource open(const Shape& shape, const std::string& codes_name, Transform transform = Transform::kNone) const {
    return CheckpointSource(model.open(), {{rule(codes_name, "w", shape, transform)}, {}, {}}, ModelConfig::parse(kConfig), Metadata());
  }

  CheckpointBuilder model;
  std::vector<float> codes;
  std::vector<float> scales;
};

TEST(ScaledFp8, HasOneScalePerTensorSliceOrRow) {
  const std::vector<Form> forms = {
      {"a.weight", {6, 40}, "a.weight_scale", DType::F32, {}},          {"a.weight", {6, 40}, "a.weight_scale_inv", DType::F32, {1}},
      {"a.weight", {6, 40}, "a.weight_scale_inv", DType::BF16, {1, 1}}, {"a.weight", {6, 40}, "a.weight_scale", DType::BF16, {6}},
      {"a.weight", {6, 40}, "a.weight_scale", DType::F32, {6, 1}},      {"stack", {3, 5, 8}, "stack_scale_inv", DType::F32, {}},
      {"stack", {3, 5, 8}, "stack_scale_inv", DType::F32, {3}},         {"stack", {3, 5, 8}, "stack_scale", DType::F32, {3, 1, 1}},
      {"stack", {3, 5, 8}, "stack_scale", DType::F32, {3, 5, 1}},
  };
  for (const Form& form : forms) {
    const Stored stored(form);
    const CheckpointSource source = stored.open(form.shape, form.codes);
    const int64_t n_rows = form.shape.n_rows(), cols = form.shape.row_length();
    const int64_t rows_per_scale = n_rows / form.scale_shape.n_elements();
    for (int64_t first = 0; first < n_rows; ++first) {
      for (const int64_t n : {int64_t{1}, std::min<int64_t>(7, n_rows - first), n_rows - first}) {
        const std::vector<float> chunk = decode_chunk(source, 0, first, n);
        for (int64_t i = 0; i < n * cols; ++i) {
          const auto at = static_cast<size_t>(first * cols + i);
          const float expected = stored.codes[at] * stored.scales[at / static_cast<size_t>(cols * rows_per_scale)];
          ASSERT_EQ(chunk[static_cast<size_t>(i)], expected) << form.scales << form.scale_shape.to_string() << " element " << at;
        }
        RawRows raw;
        source.fetch(0, first, n, raw);
        ASSERT_LE(raw.bytes.size(), source.raw_bytes(0, n));
      }
    }
    EXPECT_EQ(source.tensors()[0].source_type, DType::BF16);
    EXPECT_FALSE(source.can_copy(0, DType::BF16));
    EXPECT_EQ(source.exactness(0).type, form.scale_shape.n_elements() == 1 ? std::optional(DType::BF16) : std::nullopt);
  }
}

TEST(ScaledFp8, KeepsTheScaleOfAPermutedRow) {
  const Stored stored({"q.weight", {8, 4}, "q.weight_scale", DType::F32, {8, 1}});
  ArchRules rules{{rule("q.weight", "q", {8, 4}, Transform::kPermuteHeads)}, {}, {}};
  rules.rules[0].n_head = 2;
  const CheckpointSource source(stored.model.open(), rules, ModelConfig::parse(kConfig), Metadata());
  const std::vector<float> all = decode_chunk(source, 0, 0, 8);
  constexpr std::array<size_t, 8> kRows = {0, 2, 1, 3, 4, 6, 5, 7};
  for (size_t row = 0; row < 8; ++row) {
    EXPECT_EQ(all[4 * row + 1], stored.codes[4 * kRows[row] + 1] * stored.scales[kRows[row]]) << row;
  }
}

TEST(ScaledFp8, DropsTheScalesOfActivations) {
  Stored stored({"a.weight", {2, 4}, "a.weight_scale", DType::F32, {}});
  stored.model.add_raw("a.input_scale", DType::F32, {}, floats_to_bytes({1})).add_raw("a.activation_scale", DType::F32, {1}, Bytes(4));
  EXPECT_THAT(stored.open({2, 4}, "a.weight").notes(), Contains(HasSubstr("2 scales of activations are left out")));
}

TEST(ScaledFp8, LeavesBlocksToTheirEncoding) {
  Stored stored({"a.weight", {4, 4}, "a.weight_scale_inv", DType::F32, {2, 2}});
  EXPECT_THAT(error_of([&] { stored.open({4, 4}, "a.weight"); }), HasSubstr("no quantization_config.weight_block_size"));
}

TEST(ScaledFp8, RefusesScalesThatFitNothing) {
  const auto error_for = [](DType type, const Shape& shape) {
    const Stored stored({"a.weight", {4, 6}, "a.weight_scale", type, shape});
    return error_of([&] { stored.open({4, 6}, "a.weight"); });
  };
  EXPECT_THAT(error_for(DType::F32, {6}), HasSubstr("'a.weight_scale' has shape [6], expected one scale per tensor or per row of [4, 6]"));
  EXPECT_THAT(error_for(DType::F32, {4, 3}), HasSubstr("has shape [4, 3]"));
  CheckpointBuilder model;
  model.add_raw("a.weight", DType::F8_E4M3, {2, 2}, Bytes(4)).add_raw("a.weight_scale", DType::I32, {}, Bytes(4));
  EXPECT_THAT(error_of([&] {
                CheckpointSource(model.open(), {{rule("a.weight", "a", {2, 2})}, {}, {}}, ModelConfig(), Metadata());
              }),
              HasSubstr("'a.weight_scale' is I32, not a scale type"));
}

TEST(ScaledFp8, RefusesScalesThatDivide) {
  const ModelConfig config = ModelConfig::parse(R"({"quantization_config": {"quant_method": "fp8", "weight_scale_semantics": "inverse"}})");
  EXPECT_THAT(error_of([&] { encodings::check_config(config); }), HasSubstr("weight_scale_semantics is 'inverse'"));
}

}  // namespace
}  // namespace quern::test
