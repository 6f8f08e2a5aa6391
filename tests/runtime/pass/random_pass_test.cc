// Every family from config.json to logits, with sizes that no model at hand has: what its rules name, its keys say and its blocks expect
// must fit together.

#include <gtest/gtest.h>

#include <cmath>

#include "formats/model/model_source.h"
#include "runtime/pass/output_head.h"
#include "tests/formats/random_model.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

std::vector<float> logits_of(const fs::path& folder) {
  const auto model = open_model(folder);
  Evaluator evaluator(*model, {});
  std::vector<int32_t> tokens;
  for (int32_t t = 0; t < 40; ++t) tokens.push_back(17 * t % 500);
  evaluator.forward({{tokens}}, no_progress());
  const OutputHead head(evaluator);
  std::vector<float> states(tokens.size() * static_cast<size_t>(evaluator.hparams().hidden));
  std::vector<float> logits(tokens.size() * static_cast<size_t>(head.n_vocab()));
  evaluator.final_states().read(0, evaluator.n_rows(), states.data());
  head.logits(states.data(), evaluator.n_rows(), logits.data());
  return logits;
}

TEST(RandomPass, EveryFamilyRuns) {
  for (const auto& entry : fs::directory_iterator(fs::path(QUERN_TEST_DATA) / "random-models")) {
    if (entry.path().extension() != ".json") continue;
    SCOPED_TRACE(entry.path().string());
    const test::TempDir dir;
    test::write_random_model(entry.path(), fs::path(QUERN_TEST_DATA) / "models", dir.path());
    const std::vector<float> logits = logits_of(dir.path());
    double sum = 0.0, squares = 0.0;
    for (const float v : logits) {
      sum += static_cast<double>(v);
      squares += static_cast<double>(v) * static_cast<double>(v);
    }
    const double n = static_cast<double>(logits.size());
    EXPECT_GT(squares / n - sum / n * (sum / n), 1e-4) << "logits that say nothing";
  }
}

}  // namespace
}  // namespace quern
