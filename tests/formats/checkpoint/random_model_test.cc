#include "tests/formats/random_model.h"

#include <gtest/gtest.h>

#include "formats/model/model_source.h"

// Every family with sizes that no model at hand has, from files to floats.

namespace quern {
namespace {

namespace fs = std::filesystem;

// Decodes all rows in chunks that end in the middle of blocks and experts; true when all values are finite and not all are zero.
bool decodes(const ModelSource& model, size_t tensor) {
  const LogicalTensor& info = model.tensors()[tensor];
  const int64_t cols = info.shape.row_length();
  RawRows raw;
  std::vector<float> out;
  double sum = 0;
  for (int64_t row = 0; row < info.shape.n_rows(); row += 37) {
    const int64_t n = std::min<int64_t>(37, info.shape.n_rows() - row);
    out.resize(static_cast<size_t>(n * cols));
    model.fetch(tensor, row, n, raw);
    model.decode(raw, out);
    for (float value : out) sum += std::abs(static_cast<double>(value));
  }
  return std::isfinite(sum) && sum > 0;
}

void check_model(const fs::path& folder, const ModelOptions& options) {
  const ModelConfig config = load_config(folder);
  const auto model = open_model(folder, options);
  EXPECT_EQ(model->metadata().get_string("general.architecture"), find_arch(config).gguf_arch);
  for (size_t i = 0; i < model->tensors().size(); ++i) {
    const LogicalTensor& tensor = model->tensors()[i];
    if (tensor.keep == Keep::kInteger) continue;
    EXPECT_TRUE(decodes(*model, i)) << tensor.name;
  }
}

TEST(RandomModels, OfEveryFamilyDecodeCompletely) {
  int n_models = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(QUERN_TEST_DATA) / "random-models")) {
    if (entry.path().extension() != ".json") continue;
    SCOPED_TRACE(entry.path().string());
    const test::TempDir dir;
    test::write_random_model(entry.path(), fs::path(QUERN_TEST_DATA) / "models", dir.path());
    check_model(dir.path(), {});
    if (load_config(dir.path()).find_int("num_nextn_predict_layers", 0, 8).value_or(0) > 0) {
      ModelOptions options;
      options.mtp = true;
      check_model(dir.path(), options);
    }
    ++n_models;
  }
  EXPECT_GE(n_models, 14);
}

}  // namespace
}  // namespace quern
