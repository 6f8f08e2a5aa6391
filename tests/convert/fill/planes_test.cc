#include <gtest/gtest.h>

#include "convert/convert.h"
#include "convert/fill/run_files.h"
#include "convert/parts/part.h"
#include "tests/convert/conversion.h"
#include "tests/convert/fields_container.h"
#include "tests/formats/expect_error.h"

// Outputs whose tensors are several arrays each, in a container of the tests: its files hold what a GGUF of the same plan holds, however
// the work was divided and wherever it was interrupted.

namespace quern::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModel = "mini-qwen3moe";  // with stacked experts

PlanOptions fields_options(const fs::path& folder) {
  PlanOptions options = options_for(folder, {"Q4_1"});
  options.tensor_types = {"output\\.weight=Q4_1", "token_embd=Q4_1"};
  options.split_bytes = 400'000;
  options.container = &fields_container();
  return options;
}

// A plan with many chunks per tensor.
Plan plan_in_pieces(const ModelSource& source, const PlanOptions& options) {
  Plan plan = plan_for(source, bundled(kModel), options);
  for (PlannedTensor& tensor : plan.tensors) tensor.chunk_rows = std::max<int64_t>(1, tensor.shape.n_rows() / 13);
  return plan;
}

// Every tensor of an output as blocks, put together again from the planes in its files.
std::map<std::string, Bytes> tensors_of(const Plan& plan, const PlannedOutput& output) {
  std::map<std::string, Bytes> tensors;
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    const Placement& placement = output.tensors[t];
    const InputFile file(plan.folder / relative_name(output, placement.file));
    const std::vector<Plane> planes = output.container->planes(placement.type);
    const size_t block_bytes = static_cast<size_t>(traits(placement.type).block_bytes);
    Bytes blocks(static_cast<size_t>(placement.size_bytes));
    for (size_t p = 0; p < planes.size(); ++p) {
      Bytes bytes(static_cast<size_t>(placement.planes[p].size_bytes));
      file.read_at(placement.planes[p].file_offset, bytes);
      for (size_t b = 0; b < blocks.size() / block_bytes; ++b) {
        std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(b * planes[p].block_bytes), planes[p].block_bytes,
                    blocks.begin() + static_cast<ptrdiff_t>(b * block_bytes + planes[p].block_offset));
      }
    }
    tensors[plan.tensors[t].name] = std::move(blocks);
  }
  return tensors;
}

// The files of the one build, in its folder.
std::map<std::string, std::string> made(const PlanOptions& options, int threads) {
  convert(bundled(kModel), options, threads);
  for (const auto& entry : fs::directory_iterator(options.output)) {
    if (entry.is_directory()) return hashes(entry.path());
  }
  return {};
}

TEST(Planes, HoldTheBlocksOfTheGgufFromTheSameRead) {
  const TempDir dir;
  const std::unique_ptr<ModelSource> source = open_model(bundled(kModel));
  PlanOptions options = fields_options(dir / "out");
  Plan plan = plan_in_pieces(*source, options);
  options.container = &default_container();
  plan.outputs.push_back(plan_for(*source, bundled(kModel), options).outputs[0]);
  ASSERT_GT(plan.outputs[0].files.size(), 1u);
  run_plan(*source, plan, no_progress());
  EXPECT_EQ(tensors_of(plan, plan.outputs[0]), tensors_of(plan, plan.outputs[1]));
  const fs::path folder = plan.folder / plan.outputs[0].folder;
  EXPECT_EQ(read_text_file(folder / "index.txt", 1 << 20), plan.outputs[0].side_files[0].bytes);
  for (size_t f = 0; f < plan.outputs[0].files.size(); ++f) {
    EXPECT_EQ(fs::file_size(plan.folder / relative_name(plan.outputs[0], f)), plan.outputs[0].files[f].size_bytes);
  }
}

TEST(Planes, AreTheSameOnAnyNumberOfThreadsAndInAnyPieces) {
  const TempDir dir;
  const auto first = made(fields_options(dir / "first"), 1);
  EXPECT_GT(first.size(), 2u);
  const std::unique_ptr<ModelSource> source = open_model(bundled(kModel));
  const Plan plan = plan_in_pieces(*source, fields_options(dir / "second"));
  const ThreadLimit limit(3);
  run_plan(*source, plan, no_progress());
  EXPECT_EQ(hashes(plan.folder / plan.outputs[0].folder), first);
}

TEST(Planes, ThatAreKeptAreCountedInThePlan) {
  const std::unique_ptr<ModelSource> source = open_model(bundled(kModel));
  PlanOptions options = fields_options("/tmp/unused");
  options.tensor_types = {};
  options.types = {"F16"};
  const Plan one_plane = plan_for(*source, bundled(kModel), options);
  const Plan planes = plan_for(*source, bundled(kModel), fields_options("/tmp/unused"));
  uint64_t most = 0;
  for (const Placement& placement : planes.outputs[0].tensors) most = std::max(most, placement.size_bytes);
  EXPECT_GE(planes.base_bytes, one_plane.base_bytes + most / 5);  // scales and minima are 4 bytes of 20
}

TEST(Planes, MergeFromPartsToTheBytesOfOneRun) {
  const TempDir dir;
  const std::unique_ptr<ModelSource> source = open_model(bundled(kModel));
  PlanOptions options = fields_options(dir / "merged");
  const Plan plan = plan_in_pieces(*source, options);
  std::vector<fs::path> indexes;
  for (int k = 1; k <= 7; ++k) indexes.push_back(run_part(*source, plan, k, 7, dir / "parts", no_progress()).index);
  merge_parts(plan, indexes, no_progress());
  EXPECT_EQ(hashes(plan.folder / plan.outputs[0].folder), made(fields_options(dir / "whole"), 2));
}

// Fails, as a disk does, after so many chunks were converted.
class FailingProgress final : public Progress {
 public:
  explicit FailingProgress(int64_t n_chunks) : left_(n_chunks) {}

  void begin(std::string_view phase, uint64_t) override { converting_ = phase == "converting"; }
  void advance(uint64_t) override {
    if (converting_ && left_-- == 0) throw Error(ErrorKind::kIo, "the disk failed");
  }
  void step(std::string_view) override {}
  void end() override {}
  void note(std::string_view) override {}
  void warn(std::string_view) override {}

 private:
  int64_t left_;
  bool converting_ = false;
};

TEST(Planes, AreGoneOnWithInTheMiddleOfATensor) {
  const TempDir dir;
  const std::unique_ptr<ModelSource> source = open_model(bundled(kModel));
  const auto whole = made(fields_options(dir / "whole"), 2);
  PlanOptions options = fields_options(dir / "out");
  options.sync_bytes = 1;
  const Plan plan = plan_in_pieces(*source, options);
  const Chunks chunks(plan);
  int n_inside = 0;
  constexpr int64_t kEach = 31;
  for (int64_t n_done = 0; chunks.count() - n_done > kEach;) {
    FailingProgress failing(kEach);
    EXPECT_ERROR(run_plan(*source, plan, failing), ErrorKind::kIo, "the disk failed");
    const JournalReading reading = read_journal(plan);
    ASSERT_TRUE(reading.begun) << reading.difference;
    ASSERT_GT(reading.begun->n_chunks, n_done);
    n_done = reading.begun->n_chunks;
    for (const auto& [file, mark] : reading.begun->outputs[0]) n_inside += mark.planes.empty() ? 0 : 1;
  }
  EXPECT_GT(n_inside, 3);
  run_plan(*source, plan, no_progress());
  EXPECT_EQ(hashes(plan.folder / plan.outputs[0].folder), whole);
}

TEST(Planes, ThatWereKeptAndAreDamagedAreNotGoneOnWith) {
  const TempDir dir;
  const std::unique_ptr<ModelSource> source = open_model(bundled(kModel));
  PlanOptions options = fields_options(dir / "out");
  options.sync_bytes = 1;
  const Plan plan = plan_in_pieces(*source, options);
  size_t t = 0;
  while (plan.outputs[0].tensors[t].planes.size() == 1) ++t;
  FailingProgress failing(*Chunks(plan).beginning_at(t, 3 * plan.tensors[t].chunk_rows));
  EXPECT_ERROR(run_plan(*source, plan, failing), ErrorKind::kIo, "the disk failed");
  const JournalReading reading = read_journal(plan);
  ASSERT_TRUE(reading.begun);
  const auto& [file, mark] = *reading.begun->outputs[0].rbegin();
  ASSERT_EQ(mark.planes.size(), 2u);
  const fs::path part = part_path(plan.folder / relative_name(plan.outputs[0], file));
  Bytes bytes = read_file(part, uint64_t{1} << 30);
  bytes.at(static_cast<size_t>(mark.planes[1].file_offset)) ^= std::byte{1};
  write_bytes(part, bytes);
  EXPECT_ERROR(run_plan(*source, plan, no_progress()), ErrorKind::kFormat, "does not hold what its journal says");
}

TEST(Planes, TypesThatAContainerCannotHoldAreRefusedByName) {
  const std::unique_ptr<ModelSource> source = open_model(bundled(kModel));
  PlanOptions options = fields_options("/tmp/unused");
  options.types = {"Q8_0"};
  std::vector<Problem> problems;
  make_plan(*source, bundled(kModel), options, problems);
  EXPECT_NE(messages(problems).find("Q8_0: fields cannot hold Q8_0"), std::string::npos) << messages(problems);
}

}  // namespace
}  // namespace quern::test
