#include "verify/intact/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "formats/safetensors/safetensors.h"
#include "tests/convert/conversion.h"
#include "verify/intact/inspection.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::TempDir;
using testing::HasSubstr;
using testing::Not;

std::string text_of(const Diagnosis& diagnosis) {
  std::string text;
  for (const Symptom& symptom : diagnosis.symptoms) text += symptom.where + ": " + symptom.message + "\n";
  return text;
}

std::string template_symptoms(std::string_view text) {
  Diagnosis diagnosis;
  examine_template(text, "t", diagnosis.symptoms);
  return text_of(diagnosis);
}

class Doctor : public testing::Test {
 protected:
  // A healthy small file to make ill.
  static const fs::path& healthy() {
    static const TempDir dir;
    static const fs::path path = [] {
      test::convert(test::bundled("mini-llama3"), test::options_for(dir.path(), {"Q8_0"}));
      return test::file_ending(dir.path(), ".gguf");
    }();
    return path;
  }

  Diagnosis examined(const std::function<void(Metadata&)>& change) {
    const gguf::Header header = gguf::read_header(InputFile(healthy()));
    const Bytes all = read_file(healthy(), 1 << 28);
    Metadata metadata = header.metadata;
    change(metadata);
    Bytes out = gguf::serialize_header(metadata, header.tensors);
    out.insert(out.end(), all.begin() + static_cast<ptrdiff_t>(header.data_offset), all.end());
    test::write_bytes(dir_ / "ill.gguf", out);
    return examine(dir_ / "ill.gguf", no_progress());
  }

  TempDir dir_;
};

TEST_F(Doctor, FindsNothingInAHealthyFileOrCheckpoint) {
  const Diagnosis file = examine(healthy(), no_progress());
  EXPECT_FALSE(file.broken()) << text_of(file);
  const Diagnosis folder = examine(test::bundled("mini-llama3"), no_progress());
  EXPECT_FALSE(folder.broken()) << text_of(folder);
  EXPECT_GT(folder.n_tensors, 10U);
}

TEST_F(Doctor, NamesKeysThatAreMissingOrDoNotFit) {
  const struct {
    std::function<void(Metadata&)> change;
    const char* says;
  } cases[] = {
      {[](Metadata& m) { m.erase("general.architecture"); }, "no program can tell what model this is"},
      {[](Metadata& m) { m.erase("llama.context_length"); }, "'llama.context_length'"},
      {[](Metadata& m) { m.erase("tokenizer.ggml.tokens"); }, "(the vocabulary) is missing"},
      {[](Metadata& m) { m.erase("tokenizer.ggml.merges"); }, "tokenizer.ggml.merges is missing"},
      {[](Metadata& m) { m.erase("tokenizer.ggml.pre"); }, "guesses how words are split"},
      {[](Metadata& m) { m.set("tokenizer.ggml.eos_token_id", uint32_t{100000}); }, "eos_token_id is 100000, there are"},
      {[](Metadata& m) {
         m.set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 2});
       },
       "has 2 entries for"},
      {[](Metadata& m) {
         m.set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
       },
       "rows, the vocabulary 2 tokens"},
      {[](Metadata& m) { m.set("llama.block_count", uint32_t{7}); }, "there is no tensor of block"},
      {[](Metadata& m) { m.set("llama.block_count", uint32_t{1}); }, "there are tensors of block"},
      {[](Metadata& m) { m.set("llama.vocab_size", uint32_t{500}); }, "token_embd.weight has 512 rows, llama.vocab_size is 500"},
      {[](Metadata& m) { m.set("llama.embedding_length", uint32_t{64}); }, "wide, llama.embedding_length is 64"},
      {[](Metadata& m) { m.set("llama.expert_count", uint32_t{8}); }, "llama.expert_count is 8, but no tensor holds a stack of experts"},
      {[](Metadata& m) { m.set("general.type", std::string("adapter")); }, "is no model by itself: general.type is 'adapter'"},
  };
  for (const auto& one : cases) EXPECT_THAT(text_of(examined(one.change)), HasSubstr(one.says));
}

// Tokens, merges and the like, by what llama.cpp makes of them.
TEST_F(Doctor, NamesWhatIsWrongWithAVocabulary) {
  const auto tokens = [](Metadata& m) { return std::get<std::vector<std::string>>(*m.find("tokenizer.ggml.tokens")); };
  const auto merges = [](Metadata& m) { return std::get<std::vector<std::string>>(*m.find("tokenizer.ggml.merges")); };
  const struct {
    std::function<void(Metadata&)> change;
    Severity severity;
    const char* says;
  } cases[] = {
      {[&](Metadata& m) {
         std::vector<std::string> t = tokens(m);
         t[300] = t[200];
         m.set("tokenizer.ggml.tokens", t);
       },
       Severity::kBroken, "is token 200 and token 300; llama.cpp stops at this"},
      {[](Metadata& m) { m.set("tokenizer.ggml.tokens", std::vector<std::string>()); }, Severity::kBroken,
       "tokenizer.ggml.tokens is empty"},
      {[&](Metadata& m) {
         std::vector<std::string> t = tokens(m);
         t[300] = "\xC3(";
         m.set("tokenizer.ggml.tokens", t);
       },
       Severity::kBroken, "key 'tokenizer.ggml.tokens' has 1 entry that is not UTF-8"},
      {[](Metadata& m) { m.set("general.name", std::string("Mini \xFF\xFE")); }, Severity::kBroken, "key 'general.name' is not UTF-8"},
      {[](Metadata& m) { m.set("general.author", std::string("\xED\xA0\x80")); }, Severity::kBroken, "'general.author' is not UTF-8"},
      {[](Metadata& m) { m.set("tokenizer.ggml.merges", std::vector<std::string>()); }, Severity::kBroken, "merges is empty: every text"},
      {[&](Metadata& m) {
         std::vector<std::string> lost = merges(m);
         lost[3] = "qq qqq";
         lost[5] = "nospace";
         m.set("tokenizer.ggml.merges", lost);
       },
       Severity::kWarning, "make no token of the vocabulary, the first is 'qq qqq'"},
      {[](Metadata& m) {
         m.set("tokenizer.ggml.add_bos_token", true);
         m.erase("tokenizer.ggml.bos_token_id");
       },
       Severity::kWarning, "there is no bos_token_id: llama.cpp takes token 11, '"},
      {[](Metadata& m) {
         m.set("tokenizer.ggml.add_eos_token", true);
         m.erase("tokenizer.ggml.eos_token_id");
       },
       Severity::kWarning, "eos is to be put behind every prompt, but there is no eos_token_id"},
      {[](Metadata& m) { m.set("tokenizer.ggml.fim_pre_token_id", uint32_t{512}); }, Severity::kBroken,
       "fim_pre_token_id is 512, there are 512"},
      {[](Metadata& m) { m.set("tokenizer.ggml.padding_token_id", uint32_t{4294967295}); }, Severity::kBroken,
       "padding_token_id is 4294967295"},
      {[](Metadata& m) {
         m.set("tokenizer.ggml.eog_token_ids", std::vector<int32_t>{1, -1});
       },
       Severity::kBroken, "eog_token_ids is -1"},
      {[](Metadata& m) { m.set("tokenizer.ggml.model", std::string("gtp2")); }, Severity::kWarning, "tokenizer.ggml.model is 'gtp2'"},
      {[](Metadata& m) { m.set("tokenizer.ggml.model", std::string("llama")); }, Severity::kWarning, "tokenizer.ggml.scores is missing"},
      {[](Metadata& m) { m.set("tokenizer.ggml.scores", std::vector<float>(512, std::numeric_limits<float>::quiet_NaN())); },
       Severity::kBroken, "has 512 entries that are NaN or infinite"},
      {[](Metadata& m) { m.set("tokenizer.ggml.token_type", std::vector<int32_t>(512, 9)); }, Severity::kWarning,
       "512 values outside 1 to 6"},
  };
  for (const auto& one : cases) {
    const Diagnosis diagnosis = examined(one.change);
    const auto found =
        std::ranges::find_if(diagnosis.symptoms, [&](const Symptom& s) { return s.message.find(one.says) != std::string::npos; });
    ASSERT_NE(found, diagnosis.symptoms.end()) << one.says << "\n" << text_of(diagnosis);
    EXPECT_EQ(found->severity, one.severity) << one.says;
  }
}

TEST_F(Doctor, NamesKeysOfAnotherTypeThanLlamaCppReads) {
  const auto says = [&](const std::function<void(Metadata&)>& change) { return text_of(examined(change)); };
  EXPECT_THAT(says([](Metadata& m) { m.set("tokenizer.ggml.eos_token_id", std::string("two")); }),
              HasSubstr("key 'tokenizer.ggml.eos_token_id' has the type str, llama.cpp takes only u32"));
  EXPECT_THAT(says([](Metadata& m) { m.set("llama.context_length", int64_t{64}); }),
              HasSubstr("has the type i64, llama.cpp takes only u32"));
  EXPECT_THAT(says([](Metadata& m) { m.set("tokenizer.ggml.add_bos_token", uint8_t{1}); }),
              HasSubstr("has the type u8, llama.cpp takes only bool"));
  EXPECT_THAT(says([](Metadata& m) { m.set("tokenizer.chat_template", std::vector<std::string>{"a"}); }), HasSubstr("has the type [str]"));
  EXPECT_THAT(says([](Metadata& m) { m.set("llama.rope.freq_base", std::numeric_limits<float>::quiet_NaN()); }),
              HasSubstr("key 'llama.rope.freq_base' is NaN or infinite"));
}

TEST_F(Doctor, LooksAtTemplatesWithNames) {
  const Diagnosis diagnosis = examined([](Metadata& m) { m.set("tokenizer.chat_template.tool_use", std::string("{{ lipsum }}")); });
  EXPECT_THAT(text_of(diagnosis), HasSubstr("tokenizer.chat_template.tool_use: line 1"));
}

// What is wrong with one shard is said of that shard, and the others are looked at all the same.
TEST_F(Doctor, LooksAtEveryShard) {
  PlanOptions split = test::options_for(dir_ / "split", {"Q8_0"});
  split.split_bytes = 400'000;
  test::convert(test::bundled("mini-llama3"), split);
  const auto shard = [&](int n) { return test::file_ending(dir_ / "split", "-0000" + std::to_string(n) + "-of-00005.gguf"); };
  EXPECT_FALSE(examine(shard(1), no_progress()).broken());
  const auto patch = [](const fs::path& path, uint64_t offset, uint16_t value) {
    Bytes bytes = read_file(path, 1 << 28);
    store_le<uint16_t>(bytes.data() + offset, value);
    test::write_bytes(path, bytes);
  };
  patch(shard(2), 0, 0);  // the magic
  const gguf::Header fourth = gguf::read_header(InputFile(shard(4)));
  const auto blocks = std::ranges::find(fourth.tensors, DType::Q8_0, &TensorInfo::dtype);
  ASSERT_NE(blocks, fourth.tensors.end());
  patch(shard(4), blocks->file_offset, 0x7C00);  // an infinite scale
  const std::string found = text_of(examine(shard(1), no_progress()));
  EXPECT_THAT(found, HasSubstr(shard(2).filename().string() + ": does not begin with 'GGUF'"));
  EXPECT_THAT(found, HasSubstr(shard(4).filename().string() + ": tensor '"));
  EXPECT_THAT(found, testing::Not(HasSubstr("block_count")));  // which only says that a shard could not be read
  EXPECT_EQ(text_of(examine(shard(3), no_progress())), found);
}

TEST_F(Doctor, SaysWhatAnEditBreaks) {
  const gguf::Header header = gguf::read_header(InputFile(healthy()));
  const auto symptoms = [&](const std::function<void(Metadata&)>& change) {
    Metadata edited = header.metadata;
    change(edited);
    Diagnosis diagnosis;
    diagnosis.symptoms = symptoms_of_edit(healthy(), header, edited);
    return diagnosis;
  };
  EXPECT_EQ(text_of(symptoms([](Metadata& m) { m.set("general.name", std::string("Another")); })), "");
  EXPECT_TRUE(symptoms([](Metadata& m) { m.set("tokenizer.ggml.eos_token_id", uint32_t{99999}); }).broken());
  EXPECT_TRUE(symptoms([](Metadata& m) { m.set("tokenizer.ggml.eos_token_id", std::string("x")); }).broken());
  EXPECT_TRUE(symptoms([](Metadata& m) { m.set("llama.block_count", uint32_t{99}); }).broken());
  EXPECT_TRUE(symptoms([](Metadata& m) { m.erase("general.architecture"); }).broken());
  EXPECT_TRUE(symptoms([](Metadata& m) { m.erase("tokenizer.ggml.merges"); }).broken());
  EXPECT_TRUE(symptoms([](Metadata& m) { m.set("tokenizer.ggml.tokens", std::vector<std::string>{"a"}); }).broken());
  EXPECT_THAT(text_of(symptoms([](Metadata& m) { m.erase("tokenizer.ggml.eos_token_id"); })), HasSubstr("answers may never end"));
  EXPECT_THAT(text_of(symptoms([](Metadata& m) { m.set("qwen2.context_length", uint32_t{5}); })),
              HasSubstr("no program reads it, the architecture is 'llama'; 'llama.context_length' is read"));
  EXPECT_THAT(text_of(symptoms([](Metadata& m) { m.set("llama.contxt_length", uint32_t{5}); })),
              HasSubstr("did you mean 'llama.context_length'?"));
  EXPECT_EQ(text_of(symptoms([](Metadata& m) { m.set("tokenizer.ggml.eot_token_id", uint32_t{5}); })), "");
  EXPECT_EQ(text_of(symptoms([](Metadata& m) { m.set("my.key", uint32_t{5}); })), "");
}

// An edit that leaves a fault as it was is no new fault.
TEST_F(Doctor, DoesNotHoldOldFaultsAgainstAnEdit) {
  gguf::Header header = gguf::read_header(InputFile(healthy()));
  header.metadata.erase("llama.context_length");
  Metadata edited = header.metadata;
  edited.set("general.name", std::string("Another"));
  EXPECT_TRUE(symptoms_of_edit(healthy(), header, edited).empty());
}

TEST_F(Doctor, ReadsOnWhereTheParserStops) {
  Bytes bytes = read_file(healthy(), 1 << 28);
  const gguf::Header header = gguf::read_header(InputFile(healthy()));
  // The second tensor begins where the first does: an overlap and, behind it, a hole.
  const std::string name = header.tensors[1].name;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(header.data_offset));
  const size_t offset_at = text.find(name) + name.size() + 4 + 8 * static_cast<size_t>(header.tensors[1].shape.rank()) + 4;
  store_le<uint64_t>(bytes.data() + offset_at, 0);
  // A tensor has a scale that is infinite, and the file more bytes than it needs.
  const auto blocks = std::ranges::find(header.tensors.begin() + 2, header.tensors.end(), DType::Q8_0, &TensorInfo::dtype);
  ASSERT_NE(blocks, header.tensors.end());
  store_le<uint16_t>(bytes.data() + blocks->file_offset, 0x7C00);
  bytes.resize(bytes.size() + 1000);
  test::write_bytes(dir_ / "ill.gguf", bytes);
  EXPECT_THROW(gguf::read_header(InputFile(dir_ / "ill.gguf")), Error);
  const Diagnosis diagnosis = examine(dir_ / "ill.gguf", no_progress());
  const std::string found = text_of(diagnosis);
  EXPECT_TRUE(diagnosis.broken());
  EXPECT_THAT(found, HasSubstr("overlap"));
  EXPECT_THAT(found, HasSubstr("belong to none: something is hidden or was cut out"));
  EXPECT_THAT(found, HasSubstr("bytes after the last tensor"));
  EXPECT_THAT(found, HasSubstr("NaN or infinite"));
}

TEST_F(Doctor, SeesCutFilesAndMissingShards) {
  fs::copy_file(healthy(), dir_ / "cut.gguf");
  fs::resize_file(dir_ / "cut.gguf", fs::file_size(healthy()) / 2);
  const Diagnosis cut = examine(dir_ / "cut.gguf", no_progress());
  EXPECT_EQ(cut.symptoms.front().message, "incomplete download: " + std::to_string(fs::file_size(healthy()) / 2) + " of " +
                                              std::to_string(fs::file_size(healthy())) + " bytes; fetch it again");
  EXPECT_THAT(text_of(cut), testing::Not(HasSubstr("data ends at byte")));
  PlanOptions split = test::options_for(dir_ / "split", {"Q8_0"});
  split.split_bytes = 400'000;
  test::convert(test::bundled("mini-llama3"), split);
  fs::remove(test::file_ending(dir_ / "split", "-00002-of-00005.gguf"));
  EXPECT_THAT(text_of(examine(test::file_ending(dir_ / "split", "-00001-of-00005.gguf"), no_progress())), HasSubstr("00002-of-00005"));
}

// Whole tensors of zeros, in the checkpoint and in a file of blocks, where a zero is not a byte of zeros.
TEST_F(Doctor, NamesMatricesThatAreZero) {
  const fs::path folder = test::copy_model("mini-llama3", dir_ / "model");
  const fs::path weights = folder / "model.safetensors";
  const auto zero = [&](const std::string& name) {
    Bytes bytes = read_file(weights, 1 << 28);
    const InputFile file(weights);
    const safetensors::Header header = safetensors::read_header(file);
    const auto found = std::ranges::find(header.tensors, name, &TensorInfo::name);
    ASSERT_NE(found, header.tensors.end());
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(found->file_offset), found->size_bytes, std::byte{0});
    test::write_bytes(weights, bytes);
  };
  zero("lm_head.weight");
  zero("model.layers.0.self_attn.q_proj.weight");
  zero("model.layers.1.self_attn.o_proj.weight");
  zero("model.layers.1.input_layernorm.weight");
  const Diagnosis found = examine(folder, no_progress());
  EXPECT_TRUE(found.broken());
  EXPECT_THAT(text_of(found), HasSubstr("every weight is zero in 2 tensors, 'lm_head.weight', 'model.layers.0.self_attn.q_proj.weight'"));
  EXPECT_THAT(text_of(found), HasSubstr("every weight is zero in 1 tensor, 'model.layers.1.self_attn.o_proj.weight'"));
  EXPECT_THAT(text_of(found), Not(HasSubstr("tied on purpose")));
  EXPECT_THAT(text_of(found), Not(HasSubstr("layernorm")));

  const ConvertReport report = test::convert(folder, test::options_for(dir_ / "out", {"Q4_0"}));
  EXPECT_THAT(report.zero_tensors, testing::UnorderedElementsAre("'output.weight'", "'blk.0.attn_q.weight'", "'blk.1.attn_output.weight'"));
  EXPECT_THAT(text_of(examine(test::file_ending(dir_ / "out", ".gguf"), no_progress())), HasSubstr("zero in 2 tensors"));
}

TEST_F(Doctor, NamesTypesOfOtherProgramsOnceAndLooksAtTheRest) {
  const gguf::Header header = gguf::read_header(InputFile(healthy()));
  gguf::Header foreign = header;
  std::erase_if(foreign.tensors, [&](const TensorInfo& tensor) {
    const bool taken = tensor.name.ends_with("attn_q.weight");
    if (taken) foreign.foreign.push_back({tensor.name, 144, tensor.shape, tensor.file_offset, tensor.size_bytes});
    return taken;
  });
  ASSERT_GT(foreign.foreign.size(), 1U);
  Bytes bytes = gguf::serialize_header(foreign, foreign.metadata);
  const Bytes all = read_file(healthy(), 1 << 28);
  bytes.insert(bytes.end(), all.begin() + static_cast<ptrdiff_t>(header.data_offset), all.end());
  test::write_bytes(dir_ / "ik.gguf", bytes);
  const Diagnosis found = examine(dir_ / "ik.gguf", no_progress());
  EXPECT_EQ(found.n_tensors, header.tensors.size());
  EXPECT_THAT(text_of(found), HasSubstr("2 tensors cannot be looked at and llama.cpp refuses the file: type IQ4_KS (id 144)"));
  EXPECT_EQ(std::ranges::count(found.symptoms, Severity::kBroken, &Symptom::severity), 1) << text_of(found);
  EXPECT_THAT(text_of(found), Not(HasSubstr("belong to none")));
  const Inspection seen = inspect(dir_ / "ik.gguf");
  EXPECT_EQ(seen.tensors.size(), header.tensors.size());
  EXPECT_EQ(std::ranges::count(seen.tensors, "IQ4_KS (ik_llama.cpp)", &InspectedTensor::type), 2);
}

TEST_F(Doctor, NamesWeightsBesideThoseOfTheModel) {
  const fs::path folder = test::copy_model("mini-llama3", dir_ / "model");
  fs::copy_file(folder / "model.safetensors", folder / "consolidated.safetensors");
  Diagnosis diagnosis = examine(folder, no_progress());
  EXPECT_FALSE(diagnosis.broken()) << text_of(diagnosis);
  EXPECT_THAT(text_of(diagnosis), HasSubstr("weights that are not read: 'consolidated.safetensors'"));
  fs::rename(folder / "consolidated.safetensors", folder / "model-00001-of-00001.safetensors");
  diagnosis = examine(folder, no_progress());
  EXPECT_TRUE(diagnosis.broken());
  const std::string text = text_of(diagnosis);
  EXPECT_THAT(text, HasSubstr("holds two sets of weights: 'model.safetensors' and 'model-00001-of-00001.safetensors'"));
  EXPECT_EQ(text.find("two sets"), text.rfind("two sets")) << "said once: " << text;
}

TEST_F(Doctor, SeesWhatChatTemplatesShouldNotHold) {
  EXPECT_EQ(template_symptoms("{% for m in messages %}{{ m['content'] | trim }}{% endfor %}{{ raise_exception('no') }}"), "");
  EXPECT_THAT(template_symptoms("ok\n{{ ''.__class__.__mro__ }}"), HasSubstr("line 2: '__class__"));
  EXPECT_THAT(template_symptoms("{{ x|attr('a') }}"), HasSubstr("attr()"));
  EXPECT_THAT(template_symptoms("{{ lipsum }}"), HasSubstr("lipsum"));
  EXPECT_THAT(template_symptoms("{%- include 'other' %}"), HasSubstr("includes another template"));
  for (const char* text : {"{%import 'o' as x %}", "{%-import 'o' as x %}", "{%+  from x import y %}", "{%-\nfrom x import y %}"}) {
    EXPECT_THAT(template_symptoms(text), HasSubstr("imports another template")) << text;
  }
  EXPECT_THAT(template_symptoms("{%extends 'o' %}"), HasSubstr("builds on another template"));
  EXPECT_THAT(template_symptoms("{{ x |  attr\t('a') }}"), HasSubstr("attr()"));
  EXPECT_THAT(template_symptoms("a\n{% if x %}"), HasSubstr("line 2: '{% if' is never closed"));
  EXPECT_THAT(template_symptoms("see https://example.org"), HasSubstr("web address"));
  EXPECT_THAT(template_symptoms("a\xE2\x80\xAE"
                                "b"),
              HasSubstr("invisible character"));
  EXPECT_THAT(template_symptoms(std::string(300, 'A')), HasSubstr("encoded data"));
}

TEST_F(Doctor, SeesFilesThatRunCodeAndWeightsThatAreNotNumbers) {
  const fs::path folder = test::copy_model("mini-llama3", dir_ / "model");
  test::write_text(folder / "pytorch_model.bin", "x");
  test::write_text(folder / "modeling.py", "x");
  Bytes weights = read_file(folder / "model.safetensors", 1 << 28);
  store_le<uint16_t>(weights.data() + weights.size() - 2, 0x7FC0);
  test::write_bytes(folder / "model.safetensors", weights);
  const Diagnosis diagnosis = examine(folder, no_progress());
  EXPECT_THAT(text_of(diagnosis), HasSubstr("pytorch_model.bin: may be a pickle"));
  EXPECT_THAT(text_of(diagnosis), HasSubstr("modeling.py: Python code"));
  EXPECT_THAT(text_of(diagnosis), HasSubstr("NaN or infinite"));
  EXPECT_TRUE(diagnosis.broken());
}

}  // namespace
}  // namespace quern
