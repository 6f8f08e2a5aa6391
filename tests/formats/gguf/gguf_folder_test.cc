#include "formats/gguf/gguf_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "formats/base/error.h"
#include "tests/formats/builders.h"

namespace quern::gguf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class GgufFolder : public testing::Test {
 protected:
  void add(const std::string& name) {
    std::filesystem::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name) << "x";
  }
  std::string refusal() const {
    try {
      refuse_folder(dir_.path());
    } catch (const Error& error) {
      return error.message();
    }
  }

  test::TempDir dir_;
};

TEST_F(GgufFolder, ListsEveryModelOnce) {
  for (const char* name : {"README.md", "m-Q8_0.gguf", "imatrix.gguf", "mmproj-F16.gguf", "Q4_K_M/m-Q4_K_M-00001-of-00003.gguf",
                           "Q4_K_M/m-Q4_K_M-00002-of-00003.gguf", "Q4_K_M/m-Q4_K_M-00003-of-00003.gguf", "Q4_K_M/n-00001-of-00002.gguf",
                           "Q6_K/m-Q6_K.gguf", ".cache/m.gguf", "a/b/deep.gguf"}) {
    add(name);
  }
  EXPECT_THAT(models_in(dir_.path()),
              ElementsAre("m-Q8_0.gguf", "Q4_K_M/m-Q4_K_M-00001-of-00003.gguf", "Q4_K_M/n-00001-of-00002.gguf", "Q6_K/m-Q6_K.gguf"));
}

TEST_F(GgufFolder, NamesTheChoicesOrSaysThatThereAreNone) {
  EXPECT_THAT(refusal(), HasSubstr("holds no model"));
  add("one.gguf");
  EXPECT_EQ(refusal(), "is a folder; name the GGUF file in it: one.gguf");
  add("Q2_K/two.gguf");
  EXPECT_EQ(refusal(), "is a folder of 2 GGUF models; name one: one.gguf, Q2_K/two.gguf");
  for (int i = 0; i < 8; ++i) add("many" + std::to_string(i) + ".gguf");
  EXPECT_THAT(refusal(), HasSubstr(" and 2 more"));
}

}  // namespace
}  // namespace quern::gguf
