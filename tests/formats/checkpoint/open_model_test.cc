#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "formats/base/file.h"
#include "formats/model/model_documents.h"
#include "formats/model/model_outline.h"
#include "tests/formats/checkpoint_builder.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

fs::path model_folder(const std::string& name) { return fs::path(QUERN_TEST_DATA) / "models" / name; }

bool has_tensor(const ModelSource& source, std::string_view name) {
  return std::ranges::any_of(source.tensors(), [&](const LogicalTensor& tensor) { return tensor.name == name; });
}

ModelOptions mtp_options() {
  ModelOptions options;
  options.mtp = true;
  return options;
}

// The tokenizer keys of mini-llama3 without its tokenizer_config.json and with other ids in config.json.
Metadata keys_with_ids(const std::string& eos, const std::string& pad, const std::string& generation) {
  const TempDir dir;
  const fs::path model = model_folder("mini-llama3");
  fs::copy_file(model / "tokenizer.json", dir / "tokenizer.json");
  std::string config = read_text_file(model / "config.json", 1 << 20);
  const size_t at = config.find("\"eos_token_id\":");
  config.replace(at, config.find_first_of(",\n}", at) - at, "\"eos_token_id\": " + eos + ", \"pad_token_id\": " + pad);
  write_text(dir / "config.json", config);
  write_text(dir / "generation_config.json", generation);
  return open_outline(dir.path(), {}).source->metadata();
}

TEST(OpenModelIds, AreTheFirstOfAListAndTheRestEndTextsToo) {
  const Metadata list = keys_with_ids("[508, 300]", "-1", R"({"eos_token_id": [508, 301]})");
  EXPECT_EQ(list.get_int("tokenizer.ggml.eos_token_id"), 508);
  EXPECT_EQ(list.get_int("tokenizer.ggml.eot_token_id"), 300);
  EXPECT_EQ(list.get_int("tokenizer.ggml.eom_token_id"), 301);
  EXPECT_EQ(list.find("tokenizer.ggml.padding_token_id"), nullptr);
  const Metadata generation = keys_with_ids("null", "3", R"({"eos_token_id": 508})");
  EXPECT_EQ(generation.get_int("tokenizer.ggml.eos_token_id"), 508);
  EXPECT_EQ(generation.get_int("tokenizer.ggml.padding_token_id"), 3);
}

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

TEST(OpenModelMtp, DropsTheRepeatedEmbeddingsOfDeepSeekV3) {
  const std::unique_ptr<ModelSource> source = open_model(model_folder("mini-v3"), mtp_options());
  EXPECT_THAT(source->notes(), Contains(HasSubstr("embed_tokens.weight' repeats 'model.embed_tokens.weight' byte for byte")));
  EXPECT_THAT(source->notes(), Contains(HasSubstr("shared_head.head.weight' repeats 'lm_head.weight' byte for byte")));
  EXPECT_FALSE(has_tensor(*source, "blk.2.nextn.embed_tokens.weight"));
  EXPECT_TRUE(has_tensor(*source, "blk.2.nextn.eh_proj.weight"));
}

TEST(OpenModelMtp, ConcatenatesTheProjectionsOfDeepSeekV4) {
  const std::unique_ptr<ModelSource> source = open_model(model_folder("mini-v4"), mtp_options());
  const auto eh_proj = std::ranges::find_if(source->tensors(), [](const LogicalTensor& t) { return t.name.ends_with("eh_proj.weight"); });
  ASSERT_NE(eh_proj, source->tensors().end());
  EXPECT_EQ(eh_proj->shape, (Shape{256, 512}));
  EXPECT_THAT(eh_proj->source_names, ElementsAre("mtp.0.e_proj.weight", "mtp.0.h_proj.weight"));
}

TEST(OpenModelV4, IsExactInMxfp4AndBf16) {
  const std::unique_ptr<ModelSource> source = open_model(model_folder("mini-v4"));
  for (size_t t = 0; t < source->tensors().size(); ++t) {
    const LogicalTensor& tensor = source->tensors()[t];
    const Exactness exact = source->exactness(t);
    ASSERT_TRUE(exact.type.has_value()) << tensor.name << ": " << exact.reason;
    EXPECT_EQ(*exact.type == DType::MXFP4, tensor.role == Role::kRoutedExpert) << tensor.name;
  }
}

TEST(OpenModelV3, HasNoExactTypeForItsScales) {
  const std::unique_ptr<ModelSource> source = open_model(model_folder("mini-v3"));
  for (size_t t = 0; t < source->tensors().size(); ++t) {
    const LogicalTensor& tensor = source->tensors()[t];
    if (!tensor.name.ends_with("attn_q_a.weight")) continue;
    EXPECT_FALSE(source->exactness(t).type.has_value());
    EXPECT_THAT(source->exactness(t).reason, HasSubstr("BF16 moves a weight by at most 2^-8 of its size"));
  }
}

TEST(OpenModelFolder, SaysWhatIsWrongWithAPath) {
  TempDir dir;
  EXPECT_THAT(error_of([&] { open_model(dir / "absent"); }), HasSubstr("absent"));
  EXPECT_THAT(error_of([&] { open_model(dir.path()); }), HasSubstr("config.json"));
  write_text(dir / "model.gguf", "");
  EXPECT_THAT(error_of([&] { open_model(dir.path()); }), HasSubstr("name the GGUF file in it: model.gguf"));
  write_text(dir / "params.json", "{}");
  EXPECT_THAT(error_of([&] { open_model(dir.path()); }), HasSubstr("params.json but no config.json"));
  write_text(dir / "config.json", "{}");
  EXPECT_THAT(error_of([&] { open_model(dir / "config.json"); }), HasSubstr("name its folder"));
  write_text(dir / "hf_quant_config.json", "{}");
  EXPECT_THAT(error_of([&] { open_model(dir.path()); }), HasSubstr("NVIDIA ModelOpt"));
}

// Links to the files of a miniature, less one of them.
void link_without(const std::string& model, const std::string& left_out, const fs::path& folder) {
  for (const fs::directory_entry& entry : fs::directory_iterator(model_folder(model))) {
    if (entry.is_regular_file() && entry.path().filename() != left_out) fs::create_symlink(entry.path(), folder / entry.path().filename());
  }
}

// A miniature whose config.json has other text in place of `from`.
std::string error_of_changed_config(const std::string& from, const std::string& to) {
  TempDir dir;
  link_without("mini-v3", "config.json", dir.path());
  std::string config = read_text_file(model_folder("mini-v3") / "config.json", 1 << 20);
  const size_t at = config.find(from);
  if (at == config.npos) return "'" + from + "' is not in config.json";
  config.replace(at, from.size(), to);
  write_text(dir / "config.json", config);
  return error_of([&] { open_model(dir.path()); });
}

// A miniature whose tensors have other names, and whose config.json has other numbers. No text at all leaves a tensor out.
class Altered {
 public:
  explicit Altered(const std::string& model) : model_(model) { link_without(model, "", dir_.path()); }

  Altered& names(const std::function<std::string(const std::string&)>& rename) {
    const safetensors::Checkpoint stored(model_folder(model_));
    SafetensorsBuilder file;
    for (const safetensors::StoredTensor& tensor : stored.tensors()) {
      Bytes bytes(tensor.size_bytes);
      stored.read(tensor, 0, bytes);
      if (const std::string name = rename(tensor.name); !name.empty()) file.add(name, tensor.dtype, tensor.shape, bytes);
    }
    fs::remove(dir_ / "model.safetensors");
    write_bytes(dir_ / "model.safetensors", file.file());
    return *this;
  }
  Altered& config(const std::string& from, const std::string& to) {
    std::string text = read_text_file(dir_ / "config.json", 1 << 20);
    const size_t at = text.find(from);
    EXPECT_NE(at, text.npos) << from;
    if (at != text.npos) text.replace(at, from.size(), to);
    fs::remove(dir_ / "config.json");
    write_text(dir_ / "config.json", text);
    return *this;
  }
  std::unique_ptr<ModelSource> open() const { return open_model(dir_.path()); }
  std::string error() const {
    return error_of([&] { open(); });
  }
  const fs::path& path() const { return dir_.path(); }

 private:
  std::string model_;
  TempDir dir_;
};

TEST(OpenModelNames, OfWrappersAreReadAndTold) {
  for (const char* prefix : {"base_model.model.", "_orig_mod.", "module.", "language_model."}) {
    Altered model("mini-llama3");
    const std::unique_ptr<ModelSource> source = model.names([&](const std::string& name) { return prefix + name; }).open();
    EXPECT_THAT(source->notes(), Contains(HasSubstr(prefix)));
    EXPECT_EQ(source->tensors().size(), open_model(model_folder("mini-llama3"))->tensors().size());
  }
}

TEST(OpenModelNames, OfAnotherModelShowBothSides) {
  Altered model("mini-qwen3");
  model.names([](const std::string& name) { return "h." + std::to_string(std::hash<std::string>()(name)); });
  EXPECT_THAT(model.error(),
              AllOf(HasSubstr("none of the"), HasSubstr("stored is 'h."), HasSubstr("expected 'model.embed_tokens.weight'")));
}

TEST(OpenModelNames, OfAnAdapterInsideSayThatItIsNotMerged) {
  Altered model("mini-llama3");
  model.names([](const std::string& name) {
    return name.ends_with("q_proj.weight") ? name.substr(0, name.size() - 6) + "base_layer.weight" : name;
  });
  EXPECT_THAT(model.error(), HasSubstr("q_proj.base_layer.weight' belongs to an adapter that is not merged"));
}

TEST(OpenModelCounts, NameTheKeyOfTheConfigAndTheNumberStored) {
  EXPECT_THAT(Altered("mini-llama3").config("\"vocab_size\": 512", "\"vocab_size\": 510").error(),
              HasSubstr("config.json: 'vocab_size' is 510, but 'model.embed_tokens.weight' has 512 rows; set vocab_size to 512 if"));
  EXPECT_THAT(Altered("mini-llama3").config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3").error(),
              HasSubstr("config.json: 'num_hidden_layers' is 3, but the last layer that is stored is 'model.layers.1.', number 2; set "));
  EXPECT_THAT(
      Altered("mini-llama3").config("\"num_hidden_layers\": 2", "\"n_layers\": 1").error(),
      HasSubstr("config.json: 'n_layers' is 1, but the last layer that is stored is 'model.layers.1.', number 2; set n_layers to 2"));
}

TEST(OpenModelCounts, NameTheExperts) {
  for (const char* model : {"mini-mixtral", "mini-qwen3moe"}) {
    Altered altered(model);
    const ModelConfig config = load_config(altered.path());
    const std::string key(config.spelling("num_experts")), value = std::to_string(config.get_count("num_experts"));
    altered.config("\"" + key + "\": " + value, "\"" + key + "\": " + value + "0");
    EXPECT_THAT(altered.error(), AllOf(HasSubstr("config.json: '" + key + "' is " + value + "0, but "),
                                       HasSubstr("is stored for " + value + " experts; set " + key + " to " + value)));
  }
}

TEST(OpenModelCounts, SayWhereTheOutputMatrixIsMissing) {
  Altered model("mini-llama3");
  model.names([](const std::string& name) { return name == "lm_head.weight" ? "" : name; });
  EXPECT_THAT(model.error(), HasSubstr("'tie_word_embeddings' is false or absent, but 'lm_head.weight' is not stored; set "));
}

TEST(OpenModelFolder, NamesTheModelOfAnAdapter) {
  TempDir dir;
  write_text(dir / "adapter_config.json", R"({"base_model_name_or_path": "org/Base", "peft_type": "LORA"})");
  write_text(dir / "adapter_model.safetensors", "x");
  const auto message = [&] { return error_of([&] { open_model(dir.path()); }); };
  EXPECT_THAT(message(), HasSubstr("it is an adapter of 'org/Base'; merge it into that model"));
  write_text(dir / "config.json", "{}");
  EXPECT_THAT(message(), HasSubstr("it is an adapter of 'org/Base'; merge it into that model"));
}

TEST(OpenModelFolder, NamesTheFolderThatWasMeant) {
  TempDir dir;
  fs::create_directories(dir / "checkpoint-500");
  write_text(dir / "checkpoint-500/config.json", "{}");
  EXPECT_THAT(error_of([&] { open_model(dir.path()); }), HasSubstr("'checkpoint-500' in it may be a model: name that folder"));
  TempDir cache;
  fs::create_directories(cache / "snapshots/0123abcd");
  EXPECT_THAT(error_of([&] { open_model(cache.path()); }), HasSubstr("'snapshots/0123abcd' in it may be a model"));
  write_text(cache / "model_index.json", "{}");
  EXPECT_THAT(error_of([&] { open_model(cache.path()); }), HasSubstr("a pipeline of diffusers"));
}

struct File {
  const char* model;
  const char* name;
};
constexpr File kFiles[] = {
    {"mini-llama3", "model.safetensors"},           {"mini-llama3", "config.json"},      {"mini-llama3", "tokenizer.json"},
    {"mini-llama3", "tokenizer_config.json"},       {"mini-mixtral", "tokenizer.model"}, {"mini-v4", "model.safetensors.index.json"},
    {"mini-v4", "model-00002-of-00002.safetensors"}};

TEST(OpenModelFolder, NamesTheFileOfAnyKindThatIsAPointerOrAPage) {
  for (const auto& [model, name] : kFiles) {
    TempDir dir;
    link_without(model, name, dir.path());
    write_text(dir / name, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 17209920\n");
    EXPECT_THAT(error_of([&] { open_model(dir.path()); }), HasSubstr(std::string(name) + ": is a Git LFS pointer"));
    write_text(dir / name, "<!doctype html>\n<title>Sign in</title>");
    EXPECT_THAT(error_of([&] { open_model(dir.path()); }), HasSubstr(std::string(name) + ": is an HTML page"));
  }
}

TEST(OpenModelFolder, NamesTheLinkThatLeadsNowhere) {
  for (const auto& [model, name] : kFiles) {
    TempDir dir;
    link_without(model, name, dir.path());
    fs::create_symlink("../../blobs/0123abcd", dir / name);
    EXPECT_THAT(error_of([&] { open_model(dir.path()); }),
                HasSubstr(std::string(name) + ": is a link to '../../blobs/0123abcd', which does not exist"));
  }
}

TEST(OpenModelConfig, RefusesForeignQuantizationByName) {
  EXPECT_THAT(error_of_changed_config("\"fp8\"", "\"gptq\""), HasSubstr("'gptq'"));
  EXPECT_THAT(error_of_changed_config("\"quantization_config\"", "\"quantization\": {\"bits\": 4}, \"quantization_config\""),
              HasSubstr("MLX"));
  EXPECT_THAT(error_of_changed_config("weight_block_size", "weight_block"), HasSubstr("no quantization_config.weight_block_size"));
}

TEST(OpenModelConfig, ChecksEveryShapeAgainstTheFiles) {
  EXPECT_THAT(error_of_changed_config("\"kv_lora_rank\": ", "\"kv_lora_rank\": 1"),
              AllOf(HasSubstr("kv_a_proj_with_mqa.weight' has shape"), HasSubstr("more like it")));
}

TEST(OpenOutline, OfAConfigReadsTheTokenizerBesideIt) {
  const TempDir dir;
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"})
    fs::copy_file(model_folder("mini-llama3") / name, dir / name);
  write_text(dir / "model-00001-of-00002.safetensors", "half of a download");
  const ModelOutline outline = open_outline(dir / "config.json");
  EXPECT_TRUE(outline.has_tokenizer);
  EXPECT_FALSE(outline.has_headers);
  EXPECT_NE(outline.source->metadata().find("tokenizer.ggml.tokens"), nullptr);
  fs::remove(dir / "tokenizer.json");
  EXPECT_FALSE(open_outline(dir / "config.json").has_tokenizer);
}

TEST(Documents, AreTheFilesThatMetadataComesFrom) {
  const TempDir dir;
  fs::copy(model_folder("mini-llama3"), dir / "model", fs::copy_options::recursive);
  write_text(dir / "model" / "notes.txt", "read by nobody");
  write_text(dir / "model" / "README.md", "---\nlicense: mit\n---\n");
  fs::create_directory(dir / "model" / "additional_chat_templates");
  write_text(dir / "model" / "additional_chat_templates" / "tool_use.jinja", "{{ messages }}");
  std::vector<std::string> names;
  for (const SourceFile& file : documents_of(dir / "model")) names.push_back(file.name);
  EXPECT_THAT(names, testing::IsSupersetOf({"README.md", "additional_chat_templates/tool_use.jinja", "config.json", "tokenizer.json"}));
  EXPECT_THAT(names, testing::Not(Contains(testing::AnyOf("notes.txt", "model.safetensors"))));
  EXPECT_TRUE(std::ranges::is_sorted(names));
}

}  // namespace
}  // namespace quern::test
