// Importance on its way from a file to the encoders.

#include <gmock/gmock.h>

#include <cstring>

#include "convert/parts/part.h"
#include "convert/plan/layout.h"
#include "convert/plan/plan_json.h"
#include "formats/gguf/gguf.h"
#include "formats/statistics/imatrix.h"
#include "quantize/feedback/unbiased.h"
#include "tests/convert/conversion.h"
#include "tests/formats/expect_error.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// An entry for every tensor that is quantized, with values that differ from column to column and slice to slice.
Imatrix made_up(const ModelSource& source) {
  Imatrix imatrix;
  uint32_t state = 1;
  for (const LogicalTensor& tensor : source.tensors()) {
    if (tensor.keep != Keep::kMix) continue;
    const int64_t n_slices = tensor.shape.rank() == 3 ? tensor.shape[0] : 1;
    ImatrixEntry entry{tensor.name, tensor.shape.row_length(), n_slices, {}, std::vector<int64_t>(static_cast<size_t>(n_slices), 5000)};
    for (int64_t i = 0; i < n_slices * entry.n_columns; ++i) {
      state = state * 1664525u + 1013904223u;
      entry.sums.push_back(static_cast<float>(state >> 20));
    }
    imatrix.entries.push_back(std::move(entry));
  }
  std::ranges::sort(imatrix.entries, {}, &ImatrixEntry::name);
  imatrix.datasets = {"some/folder/calib.txt"};
  imatrix.chunk_count = 10;
  imatrix.chunk_size = 512;
  return imatrix;
}

// A model, a matrix for it in a file, and both matched.
struct Measured {
  TempDir dir;
  fs::path model;
  std::unique_ptr<ModelSource> source;
  Calibration calibration;

  explicit Measured(const std::string& name) : model(bundled(name)), source(open_model(model)) {
    write_imatrix(made_up(*source), ImatrixFormat::kGguf, dir / "i.gguf", OutputFile::Overwrite::kRefuse);
    calibration.importance = Importance(read_imatrix(dir / "i.gguf"), source->tensors());
  }

  PlanOptions options(const fs::path& folder, std::vector<std::string> types) const {
    PlanOptions result = options_for(folder, std::move(types));
    result.imatrix = dir / "i.gguf";
    return result;
  }

  Plan build(const fs::path& folder, std::vector<std::string> types, int threads = 2, uint64_t extra = uint64_t{2} << 30) const {
    const ThreadLimit limit(threads);
    PlanOptions of_run = options(folder, std::move(types));
    of_run.memory_bytes = plan_for(*source, model, of_run, calibration).base_bytes + extra;
    Plan plan = plan_for(*source, model, of_run, calibration);
    run_plan(*source, plan, no_progress(), calibration);
    return plan;
  }
};

TEST(ConvertWithImportance, EncodesEveryExpertWithItsOwn) {
  const Measured measured("mini-qwen3moe");
  const Plan plan = measured.build(measured.dir / "out", {"Q4_0"}, 1);
  const gguf::File file(measured.dir / "out" / plan.outputs[0].files[0].name);
  size_t n_compared = 0;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const LogicalTensor& tensor = measured.source->tensors()[plan.tensors[t].source_index];
    const Placement& placement = plan.outputs[0].tensors[t];
    if (tensor.role != Role::kRoutedExpert || placement.copied) continue;
    std::vector<std::byte> stored(placement.size_bytes), expected(placement.size_bytes / static_cast<uint64_t>(tensor.n_slices));
    file.read(*file.find(tensor.name), 0, stored);
    const int64_t rows = tensor.shape[1], columns = tensor.shape[2];
    std::vector<float> weights(static_cast<size_t>(rows * columns));
    for (int64_t e = 0; e < tensor.n_slices; ++e) {
      RawRows raw;
      measured.source->fetch(plan.tensors[t].source_index, e * rows, rows, raw);
      measured.source->decode(raw, weights);
      encode_rows_unbiased(placement.type, weights, rows, columns, measured.calibration.importance.columns(plan.tensors[t].source_index, e),
                           expected);
      EXPECT_EQ(std::memcmp(stored.data() + static_cast<size_t>(e) * expected.size(), expected.data(), expected.size()), 0)
          << tensor.name << " expert " << e;
      ++n_compared;
    }
  }
  EXPECT_GT(n_compared, 20u);
}

TEST(ConvertWithImportance, GivesTheSameBytesOnAnyNumberOfThreadsAnyBudgetAndInParts) {
  for (const char* const model : {"mini-v4", "mini-v3"}) {
    const Measured measured(model);
    std::map<std::string, std::string> first;
    int run = 0;
    for (const int threads : {1, 8}) {
      for (const uint64_t extra : {uint64_t{8} << 20, uint64_t{2} << 30}) {
        const fs::path folder = measured.dir / std::to_string(run++);
        measured.build(folder, {"Q4_K_M", "IQ4_NL"}, threads, extra);
        if (first.empty()) first = hashes(folder);
        EXPECT_EQ(hashes(folder), first) << model << ", " << threads << " threads, " << extra << " bytes";
      }
    }
    Plan plan = plan_from_json(plan_to_json(
        plan_for(*measured.source, measured.model, measured.options(measured.dir / "p", {"Q4_K_M", "IQ4_NL"}), measured.calibration)));
    std::vector<fs::path> indexes;
    for (int k = 1; k <= 3; ++k) {
      indexes.push_back(run_part(*measured.source, plan, k, 3, measured.dir / "parts", no_progress(), measured.calibration).index);
    }
    merge_parts(plan, indexes, no_progress());
    EXPECT_EQ(hashes(measured.dir / "p"), first) << model;
  }
}

TEST(ConvertWithImportance, BuildsSayWhichMatrixTheyWereMadeWith) {
  const Measured measured("mini-v4");
  const Plan plan = measured.build(measured.dir / "out", {"Q4_0", "lossless"});
  const Metadata& metadata = plan.outputs[0].metadata;
  EXPECT_EQ(metadata.find_string("quantize.imatrix.file"), "i.gguf");
  EXPECT_EQ(metadata.find_string("quantize.imatrix.dataset"), "calib.txt") << "no folders";
  EXPECT_EQ(metadata.find_int("quantize.imatrix.chunks_count"), 10);
  EXPECT_EQ(metadata.find_int("quantize.imatrix.entries_count"), measured.calibration.importance.record().n_entries);
  EXPECT_EQ(metadata.find_string("quern.imatrix.sha256"), measured.calibration.importance.record().sha256);
  EXPECT_EQ(plan.outputs[1].metadata.find("quern.imatrix.sha256"), nullptr) << "nothing in it went by the matrix";
  EXPECT_THAT(read_text_file(file_ending(measured.dir / "out", "Q4_0.tensors.json"), 1 << 24),
              HasSubstr(measured.calibration.importance.record().sha256));
}

TEST(ConvertWithImportance, APlanRunsWithItsOwnMatrixOnly) {
  const Measured measured("mini-llama3");
  const Plan plan = plan_from_json(
      plan_to_json(plan_for(*measured.source, measured.model, measured.options(measured.dir / "out", {"Q4_0"}), measured.calibration)));
  EXPECT_EQ(plan.imatrix_path, measured.dir / "i.gguf");
  EXPECT_ERROR(run_plan(*measured.source, plan, no_progress()), ErrorKind::kUsage, "another importance matrix: 'i.gguf'");
  const Plan without = plan_for(*measured.source, measured.model, options_for(measured.dir / "out", {"Q4_0"}));
  EXPECT_ERROR(run_plan(*measured.source, without, no_progress(), measured.calibration), ErrorKind::kUsage, "none");
  EXPECT_NE(plan_id(plan), plan_id(without));
}

TEST(ConvertWithImportance, SaysWhichTensorsNeedOneAndHaveNone) {
  const TempDir dir;
  const std::unique_ptr<ModelSource> source = open_model(bundled("mini-v4"));
  PlanOptions options = options_for(dir / "out", {"Q8_0"});
  options.tensor_types = {"ffn_up_exps=IQ2_XXS"};
  const Plan plan = plan_for(*source, bundled("mini-v4"), options);
  EXPECT_THAT(plan.notes, testing::Contains(HasSubstr("IQ2_XXS without anything known about the inputs of")));
  const Measured measured("mini-v4");
  EXPECT_THAT(plan_for(*source, bundled("mini-v4"), options, measured.calibration).notes,
              testing::Not(testing::Contains(HasSubstr("without anything known"))));
}

}  // namespace
}  // namespace quern::test
