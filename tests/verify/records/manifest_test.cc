#include "verify/records/manifest.h"

#include <gtest/gtest.h>

#include "formats/base/error.h"
#include "formats/base/sha256.h"

namespace quern {
namespace {

Manifest example() {
  Manifest manifest;
  manifest.quern_version = "1.2.3";
  manifest.base_model = "org/model";
  manifest.revision = "abcd";
  manifest.sources = {{"model.safetensors", 123, std::string(64, '1')}};
  manifest.inputs = {{"imatrix", "imatrix.gguf", 10, std::string(64, '2')}, {"calibration text", "", 0, std::string(64, '3')}};
  manifest.drift = R"({"schema":"quern.drift/1"})";
  BuildRecord build;
  build.quern_version = "1.2.3";
  build.recipe = build.label = "Q8_0";
  build.error = ErrorRecord{false, 0.5, 0.25};
  build.settings.set("quern.encoder.Q8_0", uint32_t{1});
  build.keys = {{"general.name", std::string(64, 'a')}};
  build.files = {{"Q8_0/m.gguf", kPieceBytes + 1, std::string(64, 'b'), {std::string(64, 'c'), std::string(64, 'd')}}};
  TensorRecord tensor;
  tensor.name = "t";
  tensor.type = DType::Q8_0;
  tensor.shape = {2, 1, 32};
  tensor.offset = 64;
  tensor.size_bytes = 68;
  tensor.sha256 = std::string(64, 'e');
  tensor.error = ErrorRecord{false, 0.5, 0.25};
  tensor.slices = {{std::string(64, 'f'), {true, 0, 0}}, {std::string(64, '0'), {false, 0.5, 0.3}}};
  build.tensors = {tensor};
  manifest.builds = {build};
  return manifest;
}

std::string changed(const std::string& from, const std::string& to) {
  std::string text = manifest_to_json(example());
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(Manifest, IsReadAsItWasWritten) {
  const std::string text = manifest_to_json(example());
  const Manifest read = manifest_from_json(text);
  EXPECT_EQ(manifest_to_json(read), text);
  EXPECT_EQ(read.builds[0].tensors[0].slices[1].error.relative_error, 0.3);
  EXPECT_EQ(read.inputs[1].kind, "calibration text");
  EXPECT_EQ(read.sources[0].size_bytes, 123U);
}

TEST(Manifest, CutAnywhereIsRefused) {
  const std::string text = manifest_to_json(example());
  for (size_t n = 0; n + 2 < text.size(); ++n) EXPECT_THROW(manifest_from_json(text.substr(0, n)), Error) << n;
}

TEST(Manifest, WhatCannotBeIsRefused) {
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"quern.manifest/1", "quern.manifest/2"},
           {"\"Q8_0/m.gguf\",\"size", "\"../m.gguf\",\"size"},
           {"\"Q8_0/m.gguf\",\"size", "\"/etc/passwd\",\"size"},
           {"\"Q8_0/m.gguf\",\"size", "\"a/b/m.gguf\",\"size"},
           {"\"Q8_0/m.gguf\",\"size", "\"\",\"size"},
           {std::string(64, 'b'), std::string(63, 'b')},
           {std::string(64, 'b'), std::string(64, 'B')},
           {"\"size_bytes\":1048577", "\"size_bytes\":1048576"},
           {"\"size_bytes\":1048577", "\"size_bytes\":-1"},
           {"\"size_bytes\":1048577", "\"size_bytes\":1e400"},
           {"[2,1,32]", "[2,1,33]"},
           {"[2,1,32]", "[2,1,32,1,1]"},
           {"[2,1,32]", "[9223372036854775807,9223372036854775807,32]"},
           {"\"offset\":64", "\"offset\":18446744073709551600"},
           {"\"offset\":64", "\"offset\":1048570"},
           {"\"type\":\"Q8_0\",\"shape\"", "\"type\":\"Q8_9\",\"shape\""},
           {"\"file\":\"Q8_0/m.gguf\"", "\"file\":\"other.gguf\""},
           {"\"name\":\"t\"", "\"name\":\"t\",\"name\":\"u\""},
           {"\"name\":\"t\"", "\"name\":" + std::string(100, '[') + std::string(100, ']')},
       }) {
    EXPECT_THROW(manifest_from_json(changed(from, to)), Error) << from << " -> " << to;
  }
}

TEST(Manifest, SumsAreThoseOfSha256sum) {
  const std::string a(64, 'a'), b(64, '0');
  const std::vector<Sum> sums = parse_sums(a + "  x.gguf\n" + b + " *Q4_K_M/y z.gguf\n");
  ASSERT_EQ(sums.size(), 2U);
  EXPECT_EQ(sums[0].name, "x.gguf");
  EXPECT_EQ(sums[1].name, "Q4_K_M/y z.gguf");
  EXPECT_EQ(sums[1].sha256, b);
  EXPECT_TRUE(parse_sums("").empty());
  for (const std::string& text : std::vector<std::string>{a + " x\n", a + "  \n", "x  y\n", a.substr(1) + "  xy\n", "\n"}) {
    EXPECT_THROW(parse_sums(text), Error) << text;
  }
}

}  // namespace
}  // namespace quern
