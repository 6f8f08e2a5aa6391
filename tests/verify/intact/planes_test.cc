#include <gtest/gtest.h>

#include "convert/fill/lists.h"
#include "convert/fill/run_files.h"
#include "tests/convert/conversion.h"
#include "tests/convert/fields_container.h"
#include "verify/intact/build_check.h"
#include "verify/intact/rederive.h"

// A build in a container of the tests whose tensors are several arrays each: checked, derived again, and its damage named.

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

constexpr const char* kModel = "mini-qwen3moe";

class Planes : public testing::Test {
 protected:
  Planes() : source_(open_model(test::bundled(kModel))) {
    PlanOptions options = test::options_for(dir_ / "out", {"Q4_1"});
    options.container = &test::fields_container();
    const Plan plan = test::plan_for(*source_, test::bundled(kModel), options);
    const Chunks chunks(plan);
    make_folder(plan.folder / plan.outputs[0].folder);
    RunFiles files(plan, chunks, no_progress());
    const PipelineResult result = run_chunks(*source_, plan, {}, chunks, {0, chunks.count()}, files, no_progress());
    const std::vector<FinishedOutput> finished = files.finish(result);
    publish_outputs(plan, files.writers(), finished, result.figures);
    files.end(false);
    build_ = build_record(plan, 0, finished[0], result.figures);
    folder_.path = plan.folder;
    for (const FileRecord& file : build_.files) folder_.files.push_back(file.name);
    std::ranges::sort(folder_.files);
    folder_.builds = {build_};
  }

  std::vector<Finding> found() {
    std::vector<Finding> findings;
    std::map<std::string, std::string> sums;
    check_build(folder_, build_, sums, findings, no_progress());
    return findings;
  }

  std::vector<Finding> derived() {
    std::vector<Finding> findings;
    rederive(folder_, build_, *source_, {}, {}, findings, no_progress());
    return findings;
  }

  void flip(size_t file, uint64_t offset) const {
    const fs::path path = folder_.path / build_.files[file].name;
    test::Bytes bytes = read_file(path, uint64_t{1} << 30);
    bytes.at(static_cast<size_t>(offset)) ^= std::byte{1};
    test::write_bytes(path, bytes);
  }

  const TensorRecord& experts() const { return *std::ranges::find(build_.tensors, "blk.1.ffn_up_exps.weight", &TensorRecord::name); }

  TempDir dir_;
  std::unique_ptr<ModelSource> source_;
  BuildRecord build_;
  PublishedFolder folder_;
};

TEST_F(Planes, AreIntactAndDerivedAgain) {
  EXPECT_TRUE(found().empty()) << to_string(found().front());
  EXPECT_TRUE(derived().empty()) << to_string(derived().front());
}

TEST_F(Planes, AreNamedWhenDamaged) {
  const PlaneRecord& scales = experts().planes[0];
  const uint64_t slice_bytes = scales.size_bytes / experts().slices.size();
  flip(experts().file, scales.offset + 2 * slice_bytes + 4);
  ASSERT_EQ(found().size(), 1u);
  EXPECT_EQ(found()[0].kind, "flipped-bytes");
  EXPECT_EQ(found()[0].tensor, "blk.1.ffn_up_exps.weight.scales");
  EXPECT_EQ(found()[0].slice, 2);
  ASSERT_EQ(derived().size(), 1u);
  EXPECT_EQ(derived()[0].tensor, "blk.1.ffn_up_exps.weight");
  EXPECT_EQ(derived()[0].offset, scales.offset + 2 * slice_bytes + 4);
  EXPECT_EQ(derived()[0].slice, 2);
}

TEST_F(Planes, SideFilesAreComparedByTheirBytes) {
  ASSERT_TRUE(build_.files.back().name.ends_with("index.txt"));
  flip(build_.files.size() - 1, 0);
  ASSERT_EQ(found().size(), 1u);
  EXPECT_EQ(found()[0].kind, "flipped-bytes");
  EXPECT_EQ(found()[0].file, build_.files.back().name);
}

}  // namespace
}  // namespace quern
