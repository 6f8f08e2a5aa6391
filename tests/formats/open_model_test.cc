#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "formats/decode.h"
#include "tests/formats/checkpoint_builder.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

fs::path model_folder(const std::string& name) { return fs::path(QUERN_TEST_DATA) / "models" / name; }

class OpenModel : public ::testing::TestWithParam<const char*> {};

TEST_P(OpenModel, ReadsEveryTensorOfAMiniature) {
  const std::unique_ptr<ModelSource> source = open_model(model_folder(GetParam()));
  EXPECT_EQ(source->bytes_read(), 0U);
  uint64_t sum = 0;
  RawRows raw;
  for (size_t t = 0; t < source->tensors().size(); ++t) {
    const LogicalTensor& tensor = source->tensors()[t];
    const int64_t n_rows = tensor.shape.n_rows();
    source->fetch(t, 0, n_rows, raw);
    sum += tensor.source_bytes;
    if (tensor.keep == Keep::kInteger) {
      Bytes out(tensor_size_bytes(DType::I32, tensor.shape));
      source->copy(raw, DType::I32, out);
      continue;
    }
    std::vector<float> values(static_cast<size_t>(tensor.shape.n_elements()));
    source->decode(raw, values);
    EXPECT_TRUE(std::ranges::any_of(values, [](float value) { return value != 0; })) << tensor.name;
  }
  EXPECT_GE(source->bytes_read(), sum);
}

INSTANTIATE_TEST_SUITE_P(Miniatures, OpenModel,
                         ::testing::Values("mini-llama3", "mini-mixtral", "mini-qwen2", "mini-qwen3", "mini-qwen3moe", "mini-v3", "mini-v4",
                                           "tiny-v4-flash"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace quern::test
