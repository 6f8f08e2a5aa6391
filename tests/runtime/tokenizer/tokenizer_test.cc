#include "runtime/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/tokenizer/import.h"
#include "formats/tokenizer/pretokenizers.h"
#include "formats/tokenizer/sentencepiece.h"
#include "formats/tokenizer/tokenizer_json.h"
#include "runtime/tokenizer/special_matcher.h"
#include "runtime/tokenizer/word_splitter.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const fs::path kData = QUERN_TEST_DATA;

std::string text_of(const fs::path& path) { return read_text_file(path, uint64_t{64} << 20); }

Metadata metadata_of(const fs::path& folder) {
  const json config = json::parse(text_of(folder / "config.json"));
  TokenizerInputs inputs;
  inputs.vocab_size = config.at("vocab_size");
  const auto id = [&](const char* key) {
    const auto it = config.find(key);
    return it != config.end() && it->is_number_integer() ? std::optional<int64_t>(it->get<int64_t>()) : std::nullopt;
  };
  inputs.bos_token_id = id("bos_token_id");
  inputs.eos_token_id = id("eos_token_id");
  Metadata metadata;
  std::vector<std::string> notes;
  set_tokenizer_metadata(folder, inputs, metadata, notes);
  return metadata;
}

// A byte-level vocabulary of the 256 bytes and what the merges make of them, in order.
Metadata byte_level(const std::vector<std::string>& merges, const std::string& pre = "gpt-2") {
  std::vector<std::string> tokens;
  const auto utf8 = [](uint32_t c) {
    return c < 0x80 ? std::string(1, static_cast<char>(c))
                    : std::string{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
  };
  for (uint32_t c = 0; c < 0x144; ++c) {
    const bool used = (c > 0x20 && c < 0x7F) || (c > 0xA0 && c < 0xAD) || c > 0xAD;
    if (used) tokens.push_back(utf8(c));
  }
  EXPECT_EQ(tokens.size(), 256u);
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ');
    tokens.push_back(merge.substr(0, space) + merge.substr(space + 1));
  }
  std::vector<int32_t> types(tokens.size(), 1);
  tokens.insert(tokens.end(), {"<s>", "</s>", "<user>"});
  types.insert(types.end(), {3, 3, 4});
  Metadata metadata;
  metadata.set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.set("tokenizer.ggml.pre", pre);
  metadata.set("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(tokens.size() - 3));
  metadata.set("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(tokens.size() - 2));
  metadata.set("tokenizer.ggml.tokens", tokens);
  metadata.set("tokenizer.ggml.token_type", types);
  metadata.set("tokenizer.ggml.merges", merges);
  return metadata;
}

std::string joined(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  std::string out;
  for (const int32_t id : ids) out += (out.empty() ? "" : "|") + tokenizer.piece(id);
  return out;
}

TEST(SpecialMatcher, FindsTheLeftmostAndThereTheLongest) {
  const SpecialMatcher matcher({{"<a>", 1}, {"<a>b", 2}, {"b<", 3}, {"", 4}, {"<a>bc", 5}});
  const auto at = [&](std::string_view text, size_t from) {
    const SpecialMatcher::Match match = matcher.find(text, from);
    return std::tuple(match.id, match.offset, match.length);
  };
  EXPECT_EQ(at("x<a>bd", 0), std::tuple(2, 1u, 4u));
  EXPECT_EQ(at("x<a>bc", 0), std::tuple(5, 1u, 5u));
  EXPECT_EQ(at("x<a>bc", 2), std::tuple(-1, 0u, 0u));
  EXPECT_EQ(at("b<a>", 0), std::tuple(3, 0u, 2u));
  EXPECT_EQ(at("<a", 0), std::tuple(-1, 0u, 0u));
  EXPECT_EQ(std::get<0>(std::tuple(SpecialMatcher().find("<a>", 0).id)), -1);
}

TEST(PreTokenizers, CutTextAsTheReferenceDoes) {
  const std::string text = text_of(kData / "tokenizer/hard.txt");
  const json vectors = json::parse(text_of(kData / "tokenizer/hard.json"));
  size_t n_tested = 0;
  for (const json& vector : vectors.at("cases")) {
    SCOPED_TRACE(vector.at("name").get<std::string>());
    const json file = {{"pre_tokenizer", vector.at("pre_tokenizer")}, {"model", {{"vocab", json::object()}, {"merges", json::array()}}}};
    const TokenizerJson parsed = parse_tokenizer_json(file.dump());
    const PreTokenizer* pre = find_pre_tokenizer(parsed.expressions, vector.at("ignore_merges").get<bool>());
    ASSERT_NE(pre, nullptr);
    EXPECT_EQ(pre->name, vector.at("name").get<std::string>());
    EXPECT_EQ(find_pre_tokenizer(pre->name), pre);
    std::vector<std::string_view> words;
    WordSplitter(pre->expressions).split(text, words);
    const auto sizes = vector.at("word_bytes").get<std::vector<size_t>>();
    ASSERT_EQ(words.size(), sizes.size());
    const char* next = text.data();
    for (size_t i = 0; i < words.size(); ++i) {
      ASSERT_EQ(words[i].data(), next) << i;
      ASSERT_EQ(words[i].size(), sizes[i]) << i << ": " << words[i];
      next += sizes[i];
    }
    ++n_tested;
  }
  EXPECT_EQ(n_tested + 1, all_pre_tokenizers().size()) << "smaug-bpe has llama-bpe's expressions";
}

TEST(PreTokenizers, TakeTheUnicodeDefinitionOfWhiteSpace) {
  const WordSplitter splitter(find_pre_tokenizer("gpt-2")->expressions);
  std::vector<std::string_view> words;
  splitter.split("a\u0085\u00a0b\u180ec", words);
  // U+180E is a format character since Unicode 6.3: with the letters around it, it makes three words.
  EXPECT_THAT(words, ElementsAre("a", "\u0085", "\u00a0", "b", "\u180e", "c"));
}

TEST(PreTokenizers, StayLinearOnLongRuns) {
  for (const PreTokenizer& pre : all_pre_tokenizers()) {
    SCOPED_TRACE(pre.name);
    const WordSplitter splitter(pre.expressions);
    for (const std::string unit : {" ", "\n", "a", "A", "7", "中", "-", "\u0301", " \n"}) {
      std::string text;
      while (text.size() < 1000000) text += unit;
      text += "中";
      const auto start = std::chrono::steady_clock::now();
      std::vector<std::string_view> words;
      splitter.split(text, words);
      // Linear takes some 10 ms; quadratic, 10^12 steps, would take a quarter of an hour.
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::minutes(1)) << unit;
    }
  }
}

TEST(Tokenizer, GivesTheIdsOfTheReferenceOnHardText) {
  const std::string text = text_of(kData / "tokenizer/hard.txt");
  const json vectors = json::parse(text_of(kData / "tokenizer/hard.json"));
  for (const auto& [model, ids] : vectors.at("ids").items()) {
    SCOPED_TRACE(model);
    const auto tokenizer = make_tokenizer(metadata_of(kData / "models" / model));
    const std::vector<int32_t> found = tokenizer->encode(text, false, true);
    EXPECT_EQ(found, ids.get<std::vector<int32_t>>());
    if (model == "mini-qwen2") continue;  // normalises
    EXPECT_EQ(tokenizer->decode(found), text);
  }
}

class GoldenProbe : public ::testing::TestWithParam<std::string> {};

void check_probe(const fs::path& folder) {
  const json probe = json::parse(text_of(folder / "goldens/goldens.json"));
  const std::string text = probe.at("tokenizer_probe").at("text");
  const auto ids = probe.at("tokenizer_probe").at("ids").get<std::vector<int32_t>>();
  const auto tokenizer = make_tokenizer(metadata_of(folder));
  EXPECT_EQ(tokenizer->encode(text, false, false), ids);
  EXPECT_EQ(tokenizer->decode(ids), text);
  const json& bos = probe.at("bos");
  EXPECT_EQ(tokenizer->adds_bos(), !bos.is_null());
  const int32_t first = tokenizer->encode(text, true, false).front();
  EXPECT_EQ(first, bos.is_null() ? ids.front() : bos.get<int32_t>());
}

TEST_P(GoldenProbe, GivesTheGoldenIds) { check_probe(kData / "models" / GetParam()); }

INSTANTIATE_TEST_SUITE_P(Models, GoldenProbe,
                         ::testing::Values("mini-llama3", "mini-mixtral", "mini-qwen2", "mini-qwen3", "mini-qwen3moe", "mini-v3", "mini-v4",
                                           "tiny-v4-flash"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(Tokenizer, GivesTheGoldenIdsOfTheTrainedModels) {
  const fs::path models = fs::path(QUERN_SHARED) / "models";
  if (!fs::exists(models)) GTEST_SKIP() << models << " is not here";
  for (const char* name : {"tiny-llama3", "tiny-mixtral", "tiny-qwen2", "tiny-qwen3moe", "tiny-v3"}) {
    SCOPED_TRACE(name);
    check_probe(models / name);
  }
}

TEST(BytePairModel, JoinsTheLowestRankFirstAndTheLeftmostOfEquals) {
  const auto tokenizer = make_tokenizer(byte_level({"b c", "a b", "a a", "aa a"}));
  const auto cut = [&](std::string_view text) { return joined(*tokenizer, tokenizer->encode(text, false, false)); };
  EXPECT_EQ(cut("abc"), "a|bc");
  EXPECT_EQ(cut("ab"), "ab");
  EXPECT_EQ(cut("aaaaa"), "aa|aaa");
  EXPECT_EQ(cut("ab ab"), "ab| |ab");
  EXPECT_EQ(cut("aé\n"), "a|\xC3|\xA9|\n");
  EXPECT_EQ(cut(std::string_view("\0", 1)), std::string(1, '\0'));
  EXPECT_EQ(cut(""), "");
}

TEST(BytePairModel, TakesWholeWordsOnlyWhereThePreTokenizerSaysSo) {
  // "abc" is a token that no order of merges reaches.
  const std::vector<std::string> merges = {"b c", "a b", "ab c"};
  EXPECT_EQ(make_tokenizer(byte_level(merges, "smaug-bpe"))->encode("abc", false, false).size(), 2u);
  EXPECT_EQ(make_tokenizer(byte_level(merges, "llama-bpe"))->encode("abc", false, false).size(), 1u);
}

TEST(BytePairModel, MergesAMegabyteWithoutABlank) {
  const auto tokenizer = make_tokenizer(byte_level({"a a", "aa aa", "aaaa aaaa"}));
  const std::string text(1 << 20, 'a');
  const std::vector<int32_t> ids = tokenizer->encode(text, false, false);
  EXPECT_EQ(ids.size(), text.size() / 8);
  EXPECT_EQ(tokenizer->decode(ids), text);
}

TEST(Tokenizer, PutsSpecialTokensWhereTheFileSaysSo) {
  Metadata metadata = byte_level({"a b"});
  const auto cut = [&](std::string_view text, bool add_special, bool parse_special) {
    const Tokenizer tokenizer(metadata);
    return joined(tokenizer, tokenizer.encode(text, add_special, parse_special));
  };
  EXPECT_EQ(cut("ab<s><user>b", true, true), "ab|<s>|<user>|b");
  EXPECT_EQ(cut("ab<s><user>b", true, false), "ab|<|s|>|<user>|b");
  metadata.set("tokenizer.ggml.add_bos_token", true);
  metadata.set("tokenizer.ggml.add_eos_token", true);
  EXPECT_EQ(cut("ab", true, true), "<s>|ab|</s>");
  EXPECT_EQ(cut("ab", false, true), "ab");
  EXPECT_EQ(cut("", true, true), "<s>|</s>");
}

TEST(Tokenizer, AddsBosByDefaultWhereEnginesDo) {
  EXPECT_TRUE(Tokenizer(byte_level({}, "llama-bpe")).adds_bos());
  EXPECT_TRUE(Tokenizer(byte_level({}, "tekken")).adds_bos());
  EXPECT_FALSE(Tokenizer(byte_level({}, "qwen2")).adds_bos());
  Metadata metadata = byte_level({}, "llama-bpe");
  metadata.erase("tokenizer.ggml.bos_token_id");
  EXPECT_FALSE(Tokenizer(metadata).adds_bos());
}

TEST(Tokenizer, NormalisesToNfcForQwen) {
  const std::string composed = "\u00e9\uac00";
  const std::string decomposed = "e\u0301\u1100\u1161";
  EXPECT_EQ(Tokenizer(byte_level({}, "qwen2")).encode(decomposed, false, false),
            Tokenizer(byte_level({}, "qwen2")).encode(composed, false, false));
  EXPECT_NE(Tokenizer(byte_level({}, "llama-bpe")).encode(decomposed, false, false),
            Tokenizer(byte_level({}, "llama-bpe")).encode(composed, false, false));
}

TEST(Tokenizer, RejectsTextThatIsNotUtf8) {
  const Tokenizer tokenizer(byte_level({}));
  for (const std::string_view text : {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xC0\x80", "ab\xF4\x90\x80\x80"}) {
    try {
      tokenizer.encode(text, false, false);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("offset 2: text is not valid UTF-8"));
    }
  }
}

TEST(Tokenizer, SpellsTokensOfAnyLength) {
  Metadata metadata = byte_level({"a b"});
  std::vector<std::string> tokens = *metadata.find_string_array("tokenizer.ggml.tokens");
  const std::string longest(100'000, 'a');
  tokens.back() = longest;
  metadata.set("tokenizer.ggml.tokens", tokens);
  const Tokenizer tokenizer(metadata);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{static_cast<int32_t>(tokens.size()) - 1}), longest);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(longest, false, true)), longest);
}

TEST(Tokenizer, RejectsMetadataThatDoesNotFitTogether) {
  struct Case {
    const char* key;
    MetaValue value;
    const char* expected;
  };
  const Case cases[] = {
      {"tokenizer.ggml.model", std::string("t5"), "'t5' is not supported"},
      {"tokenizer.ggml.model", std::string("llama"), "tokenizer.ggml.scores"},
      {"tokenizer.ggml.pre", std::string("kimi-k2"), "'kimi-k2' is not supported"},
      {"tokenizer.ggml.tokens", std::vector<std::string>(), "tokenizer.ggml.tokens"},
      {"tokenizer.ggml.token_type", std::vector<int32_t>{1, 2}, "differ in length"},
      {"tokenizer.ggml.bos_token_id", uint32_t{4000000}, "bos_token_id is 4000000"},
      {"tokenizer.ggml.merges", std::vector<std::string>{"ab"}, "merge 0"},
  };
  for (const Case& c : cases) {
    Metadata metadata = byte_level({"a b"});
    metadata.set(c.key, c.value);
    try {
      const Tokenizer tokenizer(metadata);
      ADD_FAILURE() << c.key;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(c.expected));
    }
  }
  EXPECT_THROW(Tokenizer(byte_level({})).decode(std::vector<int32_t>{4000000}), Error);
  EXPECT_THROW(Tokenizer(byte_level({})).piece(-1), Error);
}

// Pieces as SentencePiece trains them: characters, then joins by falling score.
Metadata pieces(std::vector<std::string> tokens, std::vector<int32_t> types) {
  std::vector<float> scores;
  for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<float>(i));
  Metadata metadata;
  metadata.set("tokenizer.ggml.model", std::string("llama"));
  metadata.set("tokenizer.ggml.tokens", std::move(tokens));
  metadata.set("tokenizer.ggml.scores", std::move(scores));
  metadata.set("tokenizer.ggml.token_type", std::move(types));
  metadata.set("tokenizer.ggml.add_bos_token", false);
  return metadata;
}

TEST(PieceModel, PutsASpaceInFrontOfTextAndAfterSpecialTokens) {
  Metadata metadata = pieces({"<unk>", "<s>", "▁", "a", "b", "▁a", "ab"}, {2, 3, 1, 1, 1, 1, 1});
  const Tokenizer tokenizer(metadata);
  EXPECT_THAT(tokenizer.encode("ab a", false, true), ElementsAre(5, 4, 5));
  EXPECT_THAT(tokenizer.encode("a<s>a", false, true), ElementsAre(5, 1, 5));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{5, 4, 5}), "ab a");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 5, 1, 5}), "<s>a<s>a");
  metadata.set("tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(Tokenizer(metadata).encode("ab a", false, true), ElementsAre(6, 5));
}

TEST(PieceModel, SplitsUnusedPiecesAgainAndMarksRunsOfUnknownCharactersOnce) {
  Metadata metadata = pieces({"<unk>", "<s>", "▁", "a", "b", "ab", "c", "abc"}, {2, 3, 1, 1, 1, 5, 1, 1});
  metadata.set("tokenizer.ggml.add_space_prefix", false);
  const Tokenizer tokenizer(metadata);
  EXPECT_THAT(tokenizer.encode("ab", false, true), ElementsAre(3, 4));
  EXPECT_THAT(tokenizer.encode("abc", false, true), ElementsAre(7));
  EXPECT_THAT(tokenizer.encode("axyz中a", false, true), ElementsAre(3, 0, 3));
}

TEST(PieceModel, RemovesExtraSpacesWhereTheFileSaysSo) {
  Metadata metadata = pieces({"<unk>", "<s>", "▁", "a"}, {2, 3, 1, 1});
  EXPECT_THAT(Tokenizer(metadata).encode("  a  a ", false, true), ElementsAre(2, 2, 2, 3, 2, 2, 3, 2));
  metadata.set("tokenizer.ggml.remove_extra_whitespaces", true);
  EXPECT_THAT(Tokenizer(metadata).encode("  a  a ", false, true), ElementsAre(2, 3, 2, 3));
  EXPECT_THAT(Tokenizer(metadata).encode("   ", false, true), ElementsAre());
}

// Random texts of words, characters of many scripts, control characters and runs of spaces.
std::vector<std::string> random_texts() {
  std::mt19937 random(7);
  const std::string words[] = {"the",    "and", "Washington", " ",    "  ",   "\n",  "\t",   "▁", "<s>",
                               "<0x41>", "é",   "e\u0301",    "中文", "🙂", "123", "\x01", "--"};
  std::vector<std::string> texts{text_of(kData / "tokenizer/hard.txt"), std::string(100000, ' '), std::string(100000, 'e')};
  for (int i = 0; i < 2000; ++i) {
    std::string& text = texts.emplace_back();
    for (auto n = random() % 60; n > 0; --n) text += random() % 4 == 0 ? words[random() % 3] + " " : words[random() % std::size(words)];
  }
  return texts;
}

// The library itself is the reference.
TEST(PieceModel, GivesTheIdsOfSentencePiece) {
  const fs::path folder = kData / "models/mini-mixtral";
  sentencepiece::SentencePieceProcessor reference;
  ASSERT_TRUE(reference.Load((folder / "tokenizer.model").string()).ok());
  const Tokenizer tokenizer(metadata_of(folder));
  for (const std::string& text : random_texts()) {
    std::vector<int> ids;
    ASSERT_TRUE(reference.Encode(text, &ids).ok());
    ASSERT_EQ(tokenizer.encode(text, false, false), ids) << text;
  }
}

// The tokenizer.json that transformers makes of a SentencePiece model: every way to make a piece of two is a merge, in the order of
// the pieces' scores.
json metaspace_file_of(const SentencePieceModel& model) {
  std::map<std::string, size_t> ids;
  std::multimap<float, size_t, std::greater<>> by_score;
  json vocab = json::object();
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePieceModel::Piece& piece = model.pieces[id];
    vocab[piece.text] = id;
    if (piece.type != 1) continue;
    ids.emplace(piece.text, id);
    by_score.emplace(piece.score, id);
  }
  json merges = json::array();
  for (const auto& [score, id] : by_score) {
    const std::string& text = model.pieces[id].text;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if (ids.contains(text.substr(0, cut)) && ids.contains(text.substr(cut))) merges.push_back({text.substr(0, cut), text.substr(cut)});
    }
  }
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  const json prepend = {{"type", "Prepend"}, {"prepend", "▁"}};
  return {{"normalizer", {{"type", "Sequence"}, {"normalizers", {prepend, replace}}}},
          {"model", {{"type", "BPE"}, {"byte_fallback", true}, {"unk_token", "<unk>"}, {"vocab", vocab}, {"merges", merges}}}};
}

TEST(PieceModel, GivesTheSameIdsWhenOnlyTheMergesAreKnown) {
  const fs::path original = kData / "models/mini-mixtral";
  const json file = metaspace_file_of(parse_sentencepiece(read_file(original / "tokenizer.model", 1 << 20)));
  const fs::path folder = fs::path(::testing::TempDir()) / ("quern-metaspace-" + std::to_string(getpid()));
  fs::create_directories(folder);
  write_file_atomically(folder / "tokenizer.json", file.dump(), OutputFile::Overwrite::kAllow);
  Metadata metadata;
  std::vector<std::string> notes;
  set_tokenizer_metadata(folder, {.vocab_size = 2048}, metadata, notes);
  fs::remove_all(folder);
  for (const std::string& note : notes) EXPECT_THAT(note, ::testing::Not(HasSubstr("merges"))) << note;
  const Tokenizer tokenizer(metadata);
  const Tokenizer expected(metadata_of(original));
  for (const std::string& text : random_texts())
    ASSERT_EQ(tokenizer.encode(text, false, false), expected.encode(text, false, false)) << text;
}

}  // namespace
}  // namespace quern
