#include "formats/model/model_kind.h"

#include <gmock/gmock.h>

#include "tests/formats/builders.h"
#include "tests/formats/expect_error.h"

namespace quern {
namespace {

using test::GgufBuilder;
using test::TempDir;
using testing::HasSubstr;

std::string why(const GgufBuilder& file) {
  const TempDir dir;
  test::write_bytes(dir / "m.gguf", file.file());
  return why_no_model(*open_model(dir / "m.gguf"));
}

GgufBuilder with(const std::string& type, const std::string& arch, const std::string& tensor) {
  GgufBuilder file;
  if (!type.empty()) file.set("general.type", type);
  if (!arch.empty()) file.set("general.architecture", arch);
  return tensor.empty() ? file : file.add_zeros(tensor, DType::F32, {2, 2});
}

TEST(ModelKind, NamesWhatIsNoModel) {
  EXPECT_THAT(why(with("adapter", "llama", "blk.0.attn_q.weight.lora_a")), HasSubstr("is an adapter (LoRA), no model"));
  EXPECT_THAT(why(with("adapter", "llama", "x").set("general.base_model.0.name", std::string("Base 8B"))), HasSubstr("of Base 8B"));
  EXPECT_THAT(why(with("", "llama", "blk.0.attn_q.weight.lora_a")), HasSubstr("is an adapter"));
  EXPECT_THAT(why(with("mmproj", "clip", "v.patch_embd.weight")), HasSubstr("mmproj"));
  EXPECT_THAT(why(with("", "clip", "v.patch_embd.weight")), HasSubstr("mmproj"));
  EXPECT_THAT(why(with("imatrix", "", "blk.0.attn_q.weight.in_sum2")), HasSubstr("is an importance matrix"));
  EXPECT_THAT(why(with("", "controlvector", "direction.1")), HasSubstr("is a control vector"));
  EXPECT_THAT(why(with("", "llama", "").set("tokenizer.ggml.tokens", std::vector<std::string>{"a"})), HasSubstr("is a vocabulary"));
}

TEST(ModelKind, KnowsAModel) {
  EXPECT_EQ(why(with("model", "llama", "token_embd.weight")), "");
  EXPECT_EQ(why(with("", "mamba", "token_embd.weight")), "");
}

TEST(ModelKind, IsRequiredByName) {
  const TempDir dir;
  test::write_bytes(dir / "lora.gguf", with("adapter", "llama", "x").file());
  EXPECT_ERROR(require_model(*open_model(dir / "lora.gguf")), ErrorKind::kUsage, "lora.gguf: is an adapter");
}

}  // namespace
}  // namespace quern
