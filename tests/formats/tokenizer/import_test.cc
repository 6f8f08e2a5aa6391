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

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

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
  EXPECT_THAT(result.notes, ElementsAre(HasSubstr("253 of 256 bytes have no token"), HasSubstr("no file names an end-of-text token"),
                                        HasSubstr("no chat template")));
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

struct Damage {
  const char* from;  // in qwen_json()
  const char* to;
  const char* expected;
};

void expect_damage_refused(std::initializer_list<Damage> cases) {
  for (const Damage& c : cases) {
    Folder folder;
    std::string json = qwen_json();
    json.replace(json.find(c.from), std::string(c.from).size(), c.to);
    folder.write("tokenizer.json", json);
    EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat), HasSubstr(c.expected));
  }
}

TEST(TokenizerImport, RejectsDamagedVocabularies) {
  expect_damage_refused({
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
  });
}

TEST(TokenizerImport, RejectsVocabulariesThatSpellNothing) {
  expect_damage_refused({
      {R"(["a b","Ġ ab"])", "[]", "there are no merges, but 2 tokens are longer than a character"},
      {R"("b":1)", R"("b":1,"b":6)", "the key 'b' occurs twice"},
      {R"("merges":)", R"("merges":["a b"],"merges":)", "the key 'merges' occurs twice"},
      {R"("b":1)", "\"\xE9\":1", "not UTF-8"},
      {R"("id":6,"content":"<tool>")", R"("id":6,"content":"<|end|>")", "token '<|end|>' has ids 5 and 6"},
  });
}

TEST(TokenizerImport, RefusesTheSameTextUnderTwoIds) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("added_tokens.json", R"({"a":8})");
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 9}, ErrorKind::kFormat), HasSubstr("ids 0 and 8 have the same text 'a'"));
  folder.write("added_tokens.json", R"({"[PAD7]":8})");
  EXPECT_THAT(import(folder.path(), {.vocab_size = 9}).texts("tokenizer.ggml.tokens"),
              ElementsAre("a", "b", "Ġ", "ab", "Ġab", "<|end|>", "<tool>", "[PAD7]_", "[PAD7]"));
}

TEST(TokenizerImport, NotesVocabulariesWithHoles) {
  Folder folder;
  std::string json = qwen_json();
  json.replace(json.find(R"("Ġab":4)"), std::string(R"("Ġab":4)").size(), R"("Ġab":9,"中":8,"xyz":10,"xy":11)");
  folder.write("tokenizer.json", json);
  const Imported result = import(folder.path(), {.vocab_size = 12});
  EXPECT_THAT(result.notes, Contains(HasSubstr("no token has id 4 and 1 others below the last, 11")));
  EXPECT_THAT(result.notes, Contains(HasSubstr("2 of 4 tokens are made by no merge")));
  EXPECT_THAT(result.notes, Contains(HasSubstr("1 tokens, first '中' (id 8), have characters that spell no byte")));
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
  EXPECT_THAT(result.notes, Contains(HasSubstr("'<tool>' has id 6")));
}

TEST(TokenizerImport, ShowsOneOfManyAddedTokensThatDoNotFit) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("added_tokens.json", R"({"<x>":7,"<y>":8,"<z>":9})");
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder":{"3":{"content":"<other>"},"6":{"content":"<tool>"}}})");
  const Imported result = import(folder.path(), {.vocab_size = 7});
  EXPECT_THAT(result.notes, Contains(HasSubstr("'<x>' has id 7, but vocab_size is 7; left out, as are 2 more like it")));
  EXPECT_THAT(result.notes, Contains(HasSubstr("'<other>' has id 3, which is 'ab' in the vocabulary; left out")));
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
  EXPECT_THAT(result.notes, Contains(HasSubstr("unk_token_id 70 is outside the vocabulary")));
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

// A byte-level tokenizer.json with this post-processor.
std::string with_step(const std::string& step) {
  std::string json = qwen_json();
  const std::string none = R"("post_processor":null)";
  return json.replace(json.find(none), none.size(), R"("post_processor":)" + step);
}

TEST(TokenizerImport, ReadsPostProcessorsOfAllKinds) {
  struct Case {
    const char* step;
    bool add_bos;
    bool add_eos;
    const char* note;  // empty: none of this file
  };
  const char* const both = R"({"type":"BertProcessing","cls":["<tool>",6],"sep":["<|end|>",5]})";
  const Case cases[] = {
      {both, true, true, ""},
      {R"({"type":"RobertaProcessing","cls":["<tool>",6],"sep":["<|end|>",5],"trim_offsets":true})", true, true, ""},
      {R"({"type":"BertProcessing","cls":["a",0],"sep":["b",1]})", false, false, "puts 'b', which is not EOS, after texts"},
      {R"({"type":"Sequence","processors":[{"type":"Sequence","processors":[{"type":"ByteLevel"},
          {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<tool>"}},{"Sequence":{"id":"A"}}],"pair":null}]}]})",
       true, false, ""},
      {R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<tool>"}},{"SpecialToken":{"id":"a"}},{"Sequence":{"id":"A"}}]})",
       true, false, "puts 2 tokens before texts"},
  };
  for (const Case& c : cases) {
    Folder folder;
    folder.write("tokenizer.json", with_step(c.step));
    folder.write("tokenizer_config.json", R"({"bos_token":"<tool>","eos_token":"<|end|>","tokenizer_class":"PreTrainedTokenizerFast"})");
    const Imported result = import(folder.path(), {.vocab_size = 7});
    EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_bos_token"), c.add_bos) << c.step;
    EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_eos_token"), c.add_eos) << c.step;
    if (*c.note == '\0') {
      EXPECT_THAT(result.notes, Not(Contains(HasSubstr("tokenizer.json puts")))) << c.step;
    } else {
      EXPECT_THAT(result.notes, Contains(HasSubstr(c.note)));
    }
  }
  Folder folder;
  folder.write("tokenizer.json", with_step(R"({"type":"SurpriseProcessing"})"));
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kUnsupported), HasSubstr("post-processor step 'SurpriseProcessing'"));
}

// Llama-3's expressions, for which engines add BOS without being told.
std::string llama_json() {
  std::string json = qwen_json();
  const std::string one = "|\\\\p{N}|";
  return json.replace(json.find(one), one.size(), "|\\\\p{N}{1,3}|")
      .replace(json.find(R"("type":"BPE")"), 12, R"("type":"BPE","ignore_merges":true)");
}

TEST(TokenizerImport, NeverLeavesBosToTheLoader) {
  Folder folder;
  folder.write("tokenizer.json", llama_json());
  const Imported none = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(none.metadata.get_string("tokenizer.ggml.pre"), "llama-bpe");
  EXPECT_EQ(none.metadata.find_bool("tokenizer.ggml.add_bos_token"), false);
  EXPECT_THAT(none.notes, Contains(HasSubstr("engines add BOS for this kind of tokenizer but there is no BOS token")));
  EXPECT_EQ(import(folder.path(), {.vocab_size = 7, .bos_token_id = 5}).metadata.find("tokenizer.ggml.add_bos_token"), nullptr);
}

TEST(TokenizerImport, KeepsEveryEndToken) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  const Imported one = import(folder.path(), {.vocab_size = 7, .eos_token_id = 5, .end_ids = {5}});
  EXPECT_EQ(one.metadata.get_int("tokenizer.ggml.eos_token_id"), 5);
  EXPECT_EQ(one.metadata.find("tokenizer.ggml.eot_token_id"), nullptr);
  const Imported many = import(folder.path(), {.vocab_size = 7, .eos_token_id = 6, .end_ids = {6, 5, 3, 4, 0, 99}});
  EXPECT_EQ(many.metadata.get_int("tokenizer.ggml.eos_token_id"), 6);
  EXPECT_EQ(many.metadata.get_int("tokenizer.ggml.eot_token_id"), 3) << "<|end|> is known by its text";
  EXPECT_EQ(many.metadata.get_int("tokenizer.ggml.eom_token_id"), 4);
  EXPECT_THAT(many.notes, Contains(HasSubstr("texts end at 'ab' (id 3) too, written as eot_token_id")));
  EXPECT_THAT(many.notes, Contains(HasSubstr("texts end at 'a' (id 0) too, which GGUF has no key for")));
  // The text that a file of the tokenizer names comes first, and the ids of the configs are kept beside it.
  folder.write("tokenizer_config.json", R"({"eos_token":"<tool>"})");
  const Imported named = import(folder.path(), {.vocab_size = 7, .eos_token_id = 1, .end_ids = {1}});
  EXPECT_EQ(named.metadata.get_int("tokenizer.ggml.eos_token_id"), 6);
  EXPECT_EQ(named.metadata.get_int("tokenizer.ggml.eot_token_id"), 1);
}

TEST(TokenizerImport, SaysWhatEnginesTakeForAMissingEnd) {
  Folder folder;
  std::string json = qwen_json();
  folder.write("tokenizer.json", json);
  folder.write("tokenizer_config.json", R"({"eos_token":"</s>"})");
  const Imported result = import(folder.path(), {.vocab_size = 12});
  EXPECT_THAT(result.notes, Contains(HasSubstr("eos_token '</s>' of the tokenizer's files is not in the vocabulary")));
  EXPECT_THAT(result.notes, Contains(HasSubstr("no file names an end-of-text token (eos): llama.cpp ends answers at '[PAD11]' (id 11)")));
}

TEST(TokenizerImport, NotesIdsThatContradictTheTokenizersFiles) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("tokenizer_config.json", R"({"pad_token":"<tool>"})");
  const Imported result = import(folder.path(), {.vocab_size = 7, .pad_token_id = 5});
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.padding_token_id"), 6);
  EXPECT_THAT(result.notes,
              Contains(HasSubstr("pad_token_id is '<|end|>' (id 5) in config.json, but the tokenizer's files name '<tool>'")));
}

TEST(TokenizerImport, UsesTheFlagsWhereThereIsNoTemplate) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("tokenizer_config.json",
               R"({"eos_token":"<|end|>","tokenizer_class":"Qwen2Tokenizer","add_bos_token":true,"add_eos_token":true})");
  const Imported result = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_bos_token"), false) << "there is no BOS token";
  EXPECT_EQ(result.metadata.find_bool("tokenizer.ggml.add_eos_token"), true);
  EXPECT_THAT(result.notes, Contains(HasSubstr("there is no BOS token")));
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
  EXPECT_THAT(named.notes, Contains(HasSubstr("chat_template.json has another chat template than tokenizer_config.json, which counts")));
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

TEST(TokenizerImport, TellsOfNamedTemplatesWithoutADefault) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("tokenizer_config.json", R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"rag","template":"r"}]})");
  const Imported named = import(folder.path(), {.vocab_size = 7});
  EXPECT_THAT(named.notes, Contains(HasSubstr("the chat templates are named tool_use, rag and none is the default")));
  // Files beside the config's list, without a chat_template.jinja.
  folder.write("additional_chat_templates/rag.jinja", "R");
  folder.write("tokenizer_config.json", R"({"chat_template":"d"})");
  const Imported both = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(both.metadata.get_string("tokenizer.chat_template"), "d");
  EXPECT_EQ(both.metadata.get_string("tokenizer.chat_template.rag"), "R");
  folder.write("tokenizer_config.json", R"({"chat_template":""})");
  EXPECT_THAT(import(folder.path(), {.vocab_size = 7}).notes, Contains(HasSubstr("the chat templates are named rag and")));
}

TEST(TokenizerImport, NotesTheSecondOfTwoDifferentTemplates) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("chat_template.jinja", "one\n");
  folder.write("tokenizer_config.json", R"({"chat_template":"one\r\n"})");
  const auto about = Contains(HasSubstr("tokenizer_config.json has another chat template than chat_template.jinja"));
  EXPECT_THAT(import(folder.path(), {.vocab_size = 7}).notes, Not(about));
  folder.write("tokenizer_config.json", R"({"chat_template":"two"})");
  EXPECT_THAT(import(folder.path(), {.vocab_size = 7}).notes, about);
}

TEST(TokenizerImport, CleansTemplatesAndRefusesWhatIsNone) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("chat_template.jinja",
               "\xEF\xBB\xBF"
               "a\r\nb");
  const Imported clean = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(clean.metadata.get_string("tokenizer.chat_template"), "a\nb");
  EXPECT_THAT(clean.notes, Contains(HasSubstr("chat_template.jinja: the byte order mark is left out")));
  folder.write("chat_template.jinja", "a\r\nb");
  EXPECT_THAT(import(folder.path(), {.vocab_size = 7}).notes, Contains(HasSubstr("carriage returns are left out")));
  folder.write("chat_template.jinja", "\n{% if x %}");
  const std::string error = error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat);
  EXPECT_THAT(error, HasSubstr("chat_template.jinja: chat template, line 2: '{% if' is never closed; --chat-template FILE gives another"));
  folder.write("mine.txt", "{\"chat_template\": \"x\"}");
  const TokenizerInputs chosen = {.vocab_size = 7, .chat_template = folder.path() / "mine.txt"};
  EXPECT_THAT(error_of(folder.path(), chosen, ErrorKind::kFormat), HasSubstr("mine.txt: chat template, line 1: is JSON"));
}

TEST(TokenizerImport, NamesVocabulariesInOtherForms) {
  EXPECT_THAT(error_of(Folder().path(), {.vocab_size = 7}, ErrorKind::kFormat), HasSubstr("no tokenizer.json or tokenizer.model"));
  struct Case {
    const char* file;
    const char* expected;
  };
  const Case cases[] = {
      {"tiktoken.model", "tiktoken.model (tiktoken ranks)"},
      {"qwen.tiktoken", "qwen.tiktoken (tiktoken ranks)"},
      {"tekken.json", "tekken.json (Mistral's tekken format)"},
      {"spiece.model", "read under the name tokenizer.model"},
      {"vocab.txt", "a WordPiece vocabulary"},
      {"vocab.json", "merges.txt is missing"},
      {"merges.txt", "vocab.json is missing"},
  };
  for (const Case& c : cases) {
    Folder folder;
    folder.write(c.file, "IQ== 0\n");
    EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kUnsupported), HasSubstr(c.expected));
  }
}

TEST(TokenizerImport, KnowsWhatATokenizerModelHolds) {
  Folder folder;
  folder.write("tokenizer.model", "IQ== 0\nIg== 1\n");
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kUnsupported), HasSubstr("holds tiktoken ranks"));
  folder.write("tokenizer.model", qwen_json());
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat), HasSubstr("is JSON and not a SentencePiece model"));
  // Ranks are no original that a tokenizer.json was made from: what is wrong with that is said.
  folder.write("tokenizer.model", "IQ== 0\nIg== 1\n");
  folder.write("tokenizer.json", byte_level_json(R"({"type":"Whitespace"})"));
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kUnsupported), HasSubstr("'Whitespace'"));
  folder.write("tokenizer.json", qwen_json());
  EXPECT_EQ(import(folder.path(), {.vocab_size = 7}).metadata.get_string("tokenizer.ggml.model"), "gpt2");
}

constexpr const char* kVocab = R"({"a":0,"b":1,"Ġ":2,"ab":3,"Ġab":4,"<|end|>":5})";
constexpr const char* kMerges = "#version: 0.2\r\na b\r\nĠ ab\n\n";

TEST(TokenizerImport, ReadsTheSlowFormOfClassesItKnows) {
  struct Case {
    const char* config;
    const char* arch;
    const char* pre;
  };
  const Case cases[] = {
      {R"({"tokenizer_class":"Qwen2Tokenizer","eos_token":"<|end|>"})", "", "qwen2"},
      {R"({"tokenizer_class":"GPT2TokenizerFast","eos_token":"<|end|>"})", "llama", "gpt-2"},
      {R"({"eos_token":"<|end|>"})", "qwen3moe", "qwen2"},
  };
  for (const Case& c : cases) {
    Folder folder;
    folder.write("vocab.json", kVocab);
    folder.write("merges.txt", kMerges);
    folder.write("tokenizer_config.json", c.config);
    folder.write("added_tokens.json", R"({"<tool>":6})");
    const Imported result = import(folder.path(), {.vocab_size = 8, .gguf_arch = c.arch});
    EXPECT_EQ(result.metadata.get_string("tokenizer.ggml.pre"), c.pre);
    EXPECT_THAT(result.texts("tokenizer.ggml.tokens"), ElementsAre("a", "b", "Ġ", "ab", "Ġab", "<|end|>", "<tool>", "[PAD7]"));
    EXPECT_THAT(result.types(), ElementsAre(1, 1, 1, 1, 1, 3, 4, 5));
    EXPECT_THAT(result.texts("tokenizer.ggml.merges"), ElementsAre("a b", "Ġ ab"));
    EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.eos_token_id"), 5);
  }
}

TEST(TokenizerImport, RefusesTheSlowFormOfOtherClasses) {
  Folder folder;
  folder.write("vocab.json", kVocab);
  folder.write("merges.txt", kMerges);
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 8, .gguf_arch = "llama"}, ErrorKind::kUnsupported),
              HasSubstr("no file names a tokenizer_class"));
  folder.write("tokenizer_config.json", R"({"tokenizer_class":"RobertaTokenizer"})");
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 8}, ErrorKind::kUnsupported), HasSubstr("'RobertaTokenizer' is not one of them"));
  folder.write("tokenizer_config.json", R"({"tokenizer_class":"GPT2Tokenizer"})");
  folder.write("merges.txt", "a b\na b c\n");
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 8}, ErrorKind::kFormat), HasSubstr("merges.txt: merge 'a b c' is not two tokens"));
  folder.write("merges.txt", "a \xFF\n");
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 8}, ErrorKind::kFormat), HasSubstr("merges.txt: is not UTF-8"));
}

TEST(TokenizerImport, ReadsSpecialTokensMapsOfOlderFolders) {
  Folder folder;
  folder.write("tokenizer.json", qwen_json());
  folder.write("special_tokens_map.json", R"({"eos_token":{"content":"<|end|>"},"pad_token":"<tool>"})");
  folder.write("tokenizer_config.json", R"({"pad_token":"<|end|>"})");
  const Imported result = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.eos_token_id"), 5);
  EXPECT_EQ(result.metadata.get_int("tokenizer.ggml.padding_token_id"), 6);
  EXPECT_THAT(result.notes, Contains(HasSubstr("'<|end|>' as pad_token, special_tokens_map.json '<tool>'; the second counts")));
  folder.write("tokenizer_config.json", R"({"pad_token":"<|end|>","added_tokens_decoder":{"6":{"content":"<tool>"}}})");
  const Imported newer = import(folder.path(), {.vocab_size = 7});
  EXPECT_EQ(newer.metadata.get_int("tokenizer.ggml.padding_token_id"), 5);
  EXPECT_EQ(newer.metadata.find("tokenizer.ggml.eos_token_id"), nullptr);
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
  EXPECT_THAT(result.notes, Contains(HasSubstr("no BOS token")));
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
  EXPECT_THAT(result.notes, ElementsAre(HasSubstr("'extra' has id 9"), HasSubstr("255 of 256 bytes have no token")));
}

TEST(TokenizerImport, RefusesSentencePieceModelsThatSpellNothing) {
  const std::string bpe = message_field(2, value_field(3, 2));
  Folder folder;
  folder.write("tokenizer.model", piece("▁a", 0, 1) + piece("ab", 0, 1) + piece("c", -1, 1) + bpe);
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat),
              HasSubstr("all 2 pieces of several characters have the same score"));
  folder.write("tokenizer.model", piece("▁a", 0, 1) + piece("a\xFF", -1, 1) + bpe);
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat), HasSubstr("piece 1 is not UTF-8"));
  folder.write("tokenizer.model", piece("▁a", 0, 1) + piece("▁a", -1, 1) + bpe);
  EXPECT_THAT(error_of(folder.path(), {.vocab_size = 7}, ErrorKind::kFormat), HasSubstr("ids 0 and 1 have the same text"));
}

TEST(TokenizerImport, WritesAnUnknownTokenThatIsNotTheFirst) {
  Folder folder;
  folder.write("tokenizer.json", R"({"pre_tokenizer":{"type":"Metaspace"},"model":{"type":"BPE","byte_fallback":true,"unk_token":"<u>",
      "vocab":{"a":0,"b":1,"ab":2,"<u>":3},"merges":["a b"]}})");
  EXPECT_EQ(import(folder.path(), {.vocab_size = 4}).metadata.find_int("tokenizer.ggml.unknown_token_id"), 3);
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
  for (const char* text : {"", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x0a\x7f"}) {
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
    EXPECT_THAT(result.types(), Not(Contains(5)));
  }
}

}  // namespace
}  // namespace quern
