#include "formats/tokenizer/import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "formats/base/error.h"
#include "formats/base/file.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A folder of small files that is removed with the object.
class Folder {
 public:
  Folder() {
    path_ = fs::temp_directory_path() / ("quern-tokenizer-" + std::to_string(getpid()) + "-" + std::to_string(counter_++));
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const fs::path& path() const { return path_; }
  void write(const std::string& name, std::string_view text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
  }

 private:
  static inline int counter_ = 0;
  fs::path path_;
};

struct Imported {
  Metadata metadata;
  std::vector<std::string> notes;

  std::vector<std::string> texts(const char* key) const {
    const std::vector<std::string>* list = metadata.find_string_array(key);
    return list == nullptr ? std::vector<std::string>() : *list;
  }
  std::vector<int64_t> types() const { return metadata.find_int_array("tokenizer.ggml.token_type").value(); }
};

Imported import(const fs::path& folder, TokenizerInputs inputs) {
  Imported result;
  set_tokenizer_metadata(folder, inputs, result.metadata, result.notes);
  return result;
}

std::string error_of(const fs::path& folder, TokenizerInputs inputs, ErrorKind kind) {
  try {
    import(folder, inputs);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

constexpr const char* kQwenSplit =
    R"({"type":"Split","pattern":{"Regex":"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false})";
constexpr const char* kByteLevel = R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false})";

// A byte-level tokenizer.json with three tokens, two merges and one added token.
std::string byte_level_json(const std::string& steps, const std::string& more_model = "") {
  return R"({"version":"1.0","normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[)" + steps +
         R"(]},"post_processor":null,"added_tokens":[{"id":5,"content":"<|end|>","special":true},{"id":6,"content":"<tool>","special":false}],)"
         R"("model":{"type":"BPE")" +
         more_model + R"(,"vocab":{"a":0,"b":1,"Ġ":2,"ab":3,"Ġab":4},"merges":["a b","Ġ ab"]}})";
}

std::string qwen_json() { return byte_level_json(std::string(kQwenSplit) + "," + kByteLevel); }

TEST(TokenizerImport, WritesTokensTypesAndMergesOfByteLevelBpe) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  const Imported result = import(folder.path(), {.vocab_size = 9});
  EXPECT_EQ(result.metadata.get_string("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(result.metadata.get_string("tokenizer.ggml.pre"), "qwen2");
  EXPECT_THAT(result.texts("tokenizer.ggml.tokens"), ElementsAre("a", "b", "Ġ", "ab", "Ġab", "<|end|>", "<tool>", "[PAD7]", "[PAD8]"));
  EXPECT_THAT(result.types(), ElementsAre(1, 1, 1, 1, 1, 3, 4, 5, 5));
  EXPECT_THAT(result.texts("tokenizer.ggml.merges"), ElementsAre("a b", "Ġ ab"));
  EXPECT_EQ(result.metadata.find("tokenizer.ggml.scores"), nullptr);
  EXPECT_EQ(result.metadata.find("tokenizer.ggml.bos_token_id"), nullptr);
  EXPECT_THAT(result.notes, ElementsAre(HasSubstr("no chat template")));
}

TEST(TokenizerImport, ReadsMergesAsPairsAndSpellsSpacesInThem) {
  Folder folder;
  std::string json = qwen_json();
  json.replace(json.find(R"(["a b","Ġ ab"])"), std::string(R"(["a b","Ġ ab"])").size(), R"([["a","b"],["Ġ","ab"]])");
  folder.write("tokenizer.json", json);
  EXPECT_THAT(import(folder.path(), {.vocab_size = 7}).texts("tokenizer.ggml.merges"), ElementsAre("a b", "Ġ ab"));
}

TEST(TokenizerImport, NamesTheExpressionThatNoEngineKnows) {
  Folder folder;
  folder.write("tokenizer.json",
               byte_level_json(std::string(R"({"type":"Split","pattern":{"Regex":"\\w+\\d"},"behavior":"Isolated"},)") + kByteLevel));
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kUnsupported), HasSubstr(R"('\w+\d')"));
}

TEST(TokenizerImport, RefusesComponentsThatGgufCannotExpress) {
  struct Case {
    const char* steps;
    const char* model;
    const char* expected;
  };
  const Case cases[] = {
      {R"({"type":"Whitespace"},{"type":"ByteLevel","add_prefix_space":false})", "", "'Whitespace'"},
      {R"({"type":"ByteLevel","add_prefix_space":true})", "", "add_prefix_space"},
      {R"({"type":"ByteLevel","add_prefix_space":false})", R"(,"end_of_word_suffix":"</w>")", "end_of_word_suffix"},
      {R"({"type":"ByteLevel","add_prefix_space":false})", R"(,"dropout":0.1)", "dropout"},
      {R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"MergedWithNext"},{"type":"ByteLevel","add_prefix_space":false})", "",
       "MergedWithNext"},
      {R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Isolated"})", "", "does not end in ByteLevel"},
  };
  for (const Case& c : cases) {
    Folder folder;
    folder.write("tokenizer.json", byte_level_json(c.steps, c.model));
    EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kUnsupported), HasSubstr(c.expected));
  }
}

TEST(TokenizerImport, RejectsDamagedVocabularies) {
  struct Case {
    const char* from;
    const char* to;
    const char* expected;
  };
  const Case cases[] = {
      {R"("b":1)", R"("b":0)", "id 0 belongs to two tokens"},
      {R"("b":1)", R"("b":-1)", "'b' has id -1"},
      {R"("b":1)", R"("b":1e9)", "'b' has id"},
      {R"("b":1)", R"("b":1e999)", "not valid JSON"},
      {R"("b":1)", R"("b":99)", "vocab_size is 7"},
      {R"("a b")", R"("a c")", "needs the token 'c'"},
      {R"("a b")", R"("ab")", "merge 'ab' is not two tokens"},
      {R"("a b")", R"(["a"])", "a merge has 1 parts"},
      {R"("id":6,"content":"<tool>")", R"("id":6,"content":"a")", "'a' has ids 0 and 6"},
      {R"("id":6,"content":"<tool>")", R"("id":0,"content":"<tool>")", "id 0 belongs to 'a' and to '<tool>'"},
      {R"("vocab")", R"("vocabulary")", "'vocab' is missing"},
      {R"("merges")", R"("fusions")", "'merges' is missing"},
  };
  for (const Case& c : cases) {
    Folder folder;
    std::string json = qwen_json();
    json.replace(json.find(c.from), std::string(c.from).size(), c.to);
    folder.write("tokenizer.json", json);
    EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat), HasSubstr(c.expected));
  }
}

TEST(TokenizerImport, RejectsEveryTruncationOfATokenizerJson) {
  const std::string good = qwen_json();
  for (size_t n = 0; n < good.size(); n += 7) {
    Folder folder;
    folder.write("tokenizer.json", good.substr(0, n));
    EXPECT_THROW(import(folder.path(), {.vocab_size = 7}), Error) << n;
  }
}

TEST(TokenizerImport, LimitsNesting) {
  Folder folder;
  folder.write("tokenizer.json", "{\"model\":" + std::string(100000, '['));
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat), HasSubstr("nested deeper"));
}

TEST(TokenizerImport, LimitsTheVocabularySize) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = int64_t{1} << 40}, ErrorKind::kFormat), HasSubstr("vocab_size"));
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 0}, ErrorKind::kFormat), HasSubstr("vocab_size"));
}

TEST(TokenizerImport, LeavesOutAddedTokensWithoutAnEmbedding) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  const Imported result = import(folder.path(), {.vocab_size = 6});
  EXPECT_EQ(result.texts("tokenizer.ggml.tokens").size(), 6u);
  EXPECT_THAT(result.notes, ::testing::Contains(HasSubstr("'<tool>' has id 6")));
}

TEST(TokenizerImport, PrefersTokenizerConfigOverConfigForSpecialIds) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("tokenizer_config.json", R"({"eos_token":{"content":"<|end|>"},"bos_token":null,"pad_token":"missing"})");
  const Imported result =
      import(folder.path(), {.vocab_size = 7, .bos_token_id = 2, .eos_token_id = 1, .pad_token_id = 6, .unk_token_id = 70});
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.eos_token_id"), 5);
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.bos_token_id"), 2);
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.padding_token_id"), 6);
  EXPECT_EQ(result.metadata.find("tokenizer.ggml.unknown_token_id"), nullptr);
  EXPECT_THAT(result.notes, ::testing::Contains(HasSubstr("unk_token_id 70 is outside the vocabulary")));
}

std::string with_template(std::string json) {
  const std::string step =
      R"("post_processor":{"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing",)"
      R"("single":[{"SpecialToken":{"id":"<|end|>"}},{"Sequence":{"id":"A"}}],)"
      R"("pair":[{"SpecialToken":{"id":"<|end|>"}},{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"<|end|>"}},{"Sequence":{"id":"B"}}]}]})";
  return json.replace(json.find(R"("post_processor":null)"), std::string(R"("post_processor":null)").size(), step);
}

TEST(TokenizerImport, AddsBosWhenTheTemplateDoesAndTheClassUsesIt) {
  struct Case {
    const char* config;
    bool add_bos;
  };
  const Case cases[] = {
      {R"({"bos_token":"<|end|>","tokenizer_class":"PreTrainedTokenizerFast","add_bos_token":false})", true},
      {R"({"bos_token":"<|end|>","tokenizer_class":"LlamaTokenizerFast","add_bos_token":false})", false},
      {R"({"bos_token":"<|end|>","tokenizer_class":"LlamaTokenizerFast"})", true},
      {R"({"bos_token":"<tool>","tokenizer_class":"PreTrainedTokenizerFast","add_bos_token":true})", false},
  };
  for (const Case& c : cases) {
    Folder folder;
    folder.write("tokenizer.json", with_template(qwen_json()));
    folder.write("tokenizer_config.json", c.config);
    const Imported result = import(folder.path(), {.vocab_size = 7});
    EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_bos_token"), c.add_bos) << c.config;
    EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_sep_token"), false) << c.config;
  }
}

TEST(TokenizerImport, UsesTheFlagsWhereThereIsNoTemplate) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("tokenizer_config.json",
               R"({"eos_token":"<|end|>","tokenizer_class":"Qwen2Tokenizer","add_bos_token":true,"add_eos_token":true})");
  const Imported result = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_bos_token"), false) << "there is no BOS token";
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_eos_token"), true);
  EXPECT_THAT(result.notes, ::testing::Contains(HasSubstr("there is no BOS token")));
}

TEST(TokenizerImport, TakesTheChatTemplateFromTheFirstSourceThatHasOne) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("chat_template.json", R"({"chat_template":"from json"})");
  EXPECT_EQ(import(folder.path(), {.vocab_size = 7}).metadata.get_string("tokenizer.chat_template"), "from json");
  folder.write("tokenizer_config.json", R"({"chat_template":[{"name":"default","template":"d"},{"name":"tool use","template":"t"}]})");
  const Imported named = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(named.metadata.get_string("tokenizer.chat_template"), "d");
  EXPECT_EQ(named.metadata.get_string("tokenizer.chat_template.tool_use"), "t");
  EXPECT_THAT(named.texts("tokenizer.chat_templates"), ElementsAre("tool_use"));
  EXPECT_THAT(named.notes, IsEmpty());
  folder.write("chat_template.jinja", "from jinja\n");
  folder.write("additional_chat_templates/b.jinja", "more");
  const Imported jinja = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(jinja.metadata.get_string("tokenizer.chat_template"), "from jinja\n");
  EXPECT_EQ(jinja.metadata.get_string("tokenizer.chat_template.b"), "more");
  folder.write("mine.txt", "from flag");
  EXPECT_EQ(
      import(folder.path(), {.vocab_size = 7, .chat_template = folder.path() / "mine.txt"}).metadata.get_string("tokenizer.chat_template"),
      "from flag");
}

TEST(TokenizerImport, RefusesTiktokenByName) {
  Folder folder;
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat), HasSubstr("no tokenizer.json or tokenizer.model"));
  folder.write("tiktoken.model", "IQ== 0\n");
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kUnsupported), HasSubstr("tiktoken.model"));
}

TEST(TokenizerImport, WritesScoresForMetaspaceBpe) {
  Folder folder;
  folder.write("tokenizer.json", R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
      {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null,
      "added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":8,"content":"▁x","special":false}],
      "model":{"type":"BPE","byte_fallback":true,"unk_token":"<unk>",
      "vocab":{"<unk>":0,"<0x0A>":1,"▁":2,"a":3,"b":4,"ab":5,"▁ab":6,"▁a":7},"merges":["a b","▁ a","▁ ab","▁a b"]}})");
  folder.write("tokenizer_config.json", R"({"tokenizer_class":"LlamaTokenizerFast","unk_token":"<unk>","chat_template":"x"})");
  const Imported result = import(folder.path(), {.vocab_size = 10});
  EXPECT_EQ(result.metadata.get_string("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(result.metadata.get_string("tokenizer.ggml.pre"), "default");
  EXPECT_THAT(result.texts("tokenizer.ggml.tokens"), ElementsAre("<unk>", "<0x0A>", "▁", "a", "b", "ab", "▁ab", "▁a", " x", "[PAD9]"));
  EXPECT_THAT(result.types(), ElementsAre(3, 6, 1, 1, 1, 1, 1, 1, 4, 5));
  const std::vector<double> scores = result.metadata.find_float_array("tokenizer.ggml.scores").value();
  EXPECT_EQ(scores[5], 0.0);   // first merge
  EXPECT_EQ(scores[7], -1.0);  // second
  EXPECT_EQ(scores[6], -2.0);  // third and fourth make the same token
  EXPECT_LT(scores[3], -2.0);  // not made by a merge
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_space_prefix"), true);
  EXPECT_EQ(result.metadata.find("tokenizer.ggml.merges"), nullptr);
  // BOS is missing, so the Llama class's default to add it cannot be followed.
  EXPECT_THAT(result.notes, ElementsAre(HasSubstr("no BOS token")));
}

// Protobuf by hand: field tags with their values, lengths below 128.
std::string message_field(int number, const std::string& bytes) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}
std::string value_field(int number, int value) {
  std::string tag(1, static_cast<char>((number << 3 & 127) | (number >= 16 ? 128 : 0)));
  if (number >= 16) tag += static_cast<char>(number >> 4);
  return tag + static_cast<char>(value);
}
std::string piece(const std::string& text, float score, int type) {
  std::string bytes(sizeof score, '\0');
  std::memcpy(bytes.data(), &score, sizeof score);
  return message_field(1, message_field(1, text) + "\x15" + bytes + (type == 1 ? "" : value_field(3, type)));
}

std::string sentencepiece_model() {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("<0x41>", 0, 6) + piece("▁a", -1.5f, 1) +
         piece("▁<M>", 0, 4) + message_field(2, value_field(3, 2) + value_field(35, 1) + value_field(41, 1)) +
         message_field(3, message_field(1, "identity") + value_field(3, 0) + value_field(4, 0));
}

TEST(TokenizerImport, ReadsSentencePieceModels) {
  Folder folder;
  folder.write("tokenizer.model", sentencepiece_model());
  folder.write("added_tokens.json", R"({"<pad>":6,"extra":9})");
  folder.write("tokenizer_config.json", R"({"tokenizer_class":"LlamaTokenizer","bos_token":"<s>","add_bos_token":true,"chat_template":"x",
      "added_tokens_decoder":{"7":{"content":"▁hi","special":false}}})");
  const Imported result = import(folder.path(), {.vocab_size = 9});
  EXPECT_EQ(result.metadata.get_string("tokenizer.ggml.model"), "llama");
  EXPECT_THAT(result.texts("tokenizer.ggml.tokens"), ElementsAre("<unk>", "<s>", "</s>", "<0x41>", "▁a", " <M>", "<pad>", " hi", "[PAD8]"));
  EXPECT_THAT(result.types(), ElementsAre(2, 3, 3, 6, 1, 4, 3, 4, 5));
  EXPECT_THAT(result.metadata.find_float_array("tokenizer.ggml.scores").value(), ElementsAre(0, 0, 0, 0, -1.5, 0, -1000, -1000, -10000));
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.eos_token_id"), 2);
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.unknown_token_id"), 0);
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_bos_token"), true);
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_eos_token"), false);
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_space_prefix"), false);
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.remove_extra_whitespaces"), false);
  EXPECT_THAT(result.notes, ElementsAre(HasSubstr("'extra' has id 9")));
}

TEST(TokenizerImport, RefusesUnigramModels) {
  Folder folder;
  folder.write("tokenizer.model", piece("a", 0, 1));
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kUnsupported), HasSubstr("SentencePiece model type 1"));
}

TEST(TokenizerImport, RejectsBytesThatAreNoSentencePieceModel) {
  const std::string good = sentencepiece_model();
  for (size_t n = 0; n < good.size(); ++n) {
    Folder folder;
    folder.write("tokenizer.model", good.substr(0, n));
    // A prefix that ends between two messages is a smaller model, so only the ones that end inside one must fail.
    try {
      import(folder.path(), {.vocab_size = 9});
    } catch (const Error&) {
    }
  }
  for (const char* text : {"IQ== 0\nIg== 1\n", "", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x0a\x7f"}) {
    Folder folder;
    folder.write("tokenizer.model", text);
    EXPECT_THAT(error_of(folder.path(), {.vocab_size = 9}, ErrorKind::kFormat), HasSubstr("tokenizer.model")) << text;
  }
}

// Expected values of the miniatures, from their README and files.
TEST(TokenizerImport, ImportsTheMiniatures) {
  struct Case {
    const char* model;
    const char* arch;
    const char* pre;
    int64_t vocab_size;
    std::optional<int64_t> bos;
    int64_t eos;
    std::optional<bool> add_bos;
    size_t n_merges;
  };
  const Case cases[] = {
      {"mini-llama3", "llama", "llama-bpe", 512, 507, 508, true, 251},
      {"mini-qwen2", "qwen2", "qwen2", 512, std::nullopt, 509, false, 253},
      {"mini-qwen3", "qwen3", "qwen2", 512, std::nullopt, 509, false, 253},
      {"mini-qwen3moe", "qwen3moe", "qwen2", 512, std::nullopt, 509, false, 253},
      {"mini-v3", "deepseek2", "deepseek-v3", 512, 0, 1, true, 249},
      {"mini-v4", "deepseek4", "joyai-llm", 512, 0, 1, true, 249},
      {"tiny-v4-flash", "deepseek4", "joyai-llm", 2048, 0, 1, true, 1760},
      {"mini-mixtral", "llama", "default", 2048, 1, 2, true, 0},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.model);
    const Imported result = import(fs::path(QUERN_TEST_DATA) / "models" / c.model, {.vocab_size = c.vocab_size, .gguf_arch = c.arch});
    EXPECT_EQ(result.metadata.get_string("tokenizer.ggml.pre"), c.pre);
    EXPECT_EQ(result.metadata.find_int("tokenizer.ggml.bos_token_id"), c.bos);
    EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.eos_token_id"), c.eos);
    EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_bos_token"), c.add_bos);
    EXPECT_EQ(static_cast<int64_t>(result.texts("tokenizer.ggml.tokens").size()), c.vocab_size);
    EXPECT_EQ(result.texts("tokenizer.ggml.merges").size(), c.n_merges);
    EXPECT_THAT(result.types(), ::testing::Not(::testing::Contains(5)));
  }
}

}  // namespace
}  // namespace quern
