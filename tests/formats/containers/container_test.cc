#include "formats/containers/container.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "formats/gguf/gguf.h"
#include "tests/formats/builders.h"

namespace quern::test {
namespace {

constexpr DType kTypes[] = {
#define QUERN_TYPE_IN_LIST(name, id, weights, bytes) DType::name,
    QUERN_DTYPES(QUERN_TYPE_IN_LIST)
#undef QUERN_TYPE_IN_LIST
};

// What for_each_run makes of the planes is what the writer counts on.
TEST(Containers, PlanesShareOutEveryBlockWithoutRest) {
  for (const Container* container : all_containers()) {
    for (const DType type : kTypes) {
      if (!container->holds(type)) continue;
      const Shape shape{3, 2 * traits(type).block_weights};
      std::vector<bool> taken(static_cast<size_t>(traits(type).block_bytes));
      const std::vector<Plane> planes = container->planes(type);
      const std::vector<TensorInfo> arrays = container->arrays({"a.weight", type, shape, 0, tensor_size_bytes(type, shape)});
      const std::vector<uint64_t> sizes = plane_sizes(*container, type, shape);
      ASSERT_EQ(arrays.size(), planes.size()) << name_of(type);
      for (size_t p = 0; p < planes.size(); ++p) {
        EXPECT_LE(planes[p].block_bytes, planes.front().block_bytes) << name_of(type);
        EXPECT_EQ(arrays[p].size_bytes, sizes[p]) << name_of(type);
        for (uint32_t b = 0; b < planes[p].block_bytes; ++b) {
          ASSERT_FALSE(taken.at(planes[p].block_offset + b)) << name_of(type);
          taken[planes[p].block_offset + b] = true;
        }
      }
      EXPECT_EQ(std::count(taken.begin(), taken.end(), false), 0) << name_of(type);
    }
  }
}

TEST(Containers, AreFoundByName) {
  EXPECT_EQ(find_container("gguf"), &default_container());
  EXPECT_EQ(find_container("GGUF"), nullptr);
}

TEST(Containers, KnowTheFilesOfAGgufByName) {
  const Container& gguf = default_container();
  EXPECT_EQ(gguf.file_name("a", 0, 1), "a.gguf");
  EXPECT_EQ(gguf.file_name("a", 1, 3), "a-00002-of-00003.gguf");
  EXPECT_TRUE(gguf.is_first_file_name("a.gguf"));
  EXPECT_TRUE(gguf.is_first_file_name("a-00001-of-00003.gguf"));
  EXPECT_TRUE(gguf.is_first_file_name("two-of-us.gguf"));
  EXPECT_FALSE(gguf.is_first_file_name("a-00002-of-00003.gguf"));
  EXPECT_FALSE(gguf.is_file_name("a.gguf.part"));
}

TEST(Containers, ReadBackTheHeaderOfAGguf) {
  const TempDir dir;
  Metadata metadata;
  metadata.set("general.architecture", std::string("llama"));
  const TensorInfo tensor{"t", DType::Q4_1, {2, 64}, 0, 80};
  const Container& gguf = default_container();
  for (const size_t n_files : {size_t{1}, size_t{2}}) {
    const FileContents contents{metadata, 0, n_files, 1, {tensor}};
    Bytes bytes = gguf.header(contents);
    const uint64_t data_offset = bytes.size();
    bytes.resize(bytes.size() + 96);
    write_bytes(dir / "a.gguf", bytes);
    const FileHeader header = gguf.read_header(InputFile(dir / "a.gguf"));
    ASSERT_EQ(header.arrays.size(), 1u);
    EXPECT_EQ(header.arrays[0].file_offset, data_offset);
    EXPECT_EQ(header.values, gguf.values(contents));
    ASSERT_TRUE(header.place);
    EXPECT_EQ(header.place->number, n_files == 1 ? -1 : 0);
  }
}

}  // namespace
}  // namespace quern::test
