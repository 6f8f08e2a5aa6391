#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "tests/convert/conversion.h"
#include "tests/formats/expect_error.h"
#include "verify/drift/drift_job.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

// A model, a text that it is measured on, and a build with other tokens.
class Comparable : public testing::Test {
 protected:
  Comparable() {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "The miller, " + std::to_string(i) + " years old, ground what the farmers brought.\n";
    write(text);
    test::convert(test::bundled("mini-llama3"), test::options_for(dir_ / "build", {"Q8_0"}));
    build_ = test::file_ending(dir_ / "build", ".gguf");
  }

  void write(const std::string& text) const { test::write_text(dir_ / "text.txt", text); }
  ChunkedText text(int64_t ctx = 64) const { return load_text(*original_, {.file = dir_ / "text.txt", .ctx = ctx, .max_chunks = 1}); }

  // The build with some tokens of other texts.
  std::string with_tokens(const std::function<void(std::vector<std::string>&)>& change) const {
    const gguf::Header header = gguf::read_header(InputFile(build_));
    Metadata metadata = header.metadata;
    std::vector<std::string> tokens = *metadata.find_string_array("tokenizer.ggml.tokens");
    change(tokens);
    metadata.set("tokenizer.ggml.tokens", tokens);
    test::Bytes bytes = gguf::serialize_header(metadata, header.tensors);
    const test::Bytes all = read_file(build_, 1 << 28);
    bytes.insert(bytes.end(), all.begin() + static_cast<ptrdiff_t>(header.data_offset), all.end());
    test::write_bytes(dir_ / "changed.gguf", bytes);
    return (dir_ / "changed.gguf").string();
  }

  std::vector<std::string> checked(const std::string& build, const ChunkedText& chunked) const {
    return check_comparable(std::span(&build, 1), basis_of(*original_, chunked));
  }

  test::TempDir dir_;
  std::unique_ptr<ModelSource> original_ = open_model(test::bundled("mini-llama3"));
  fs::path build_;
};

TEST_F(Comparable, TheSameTokenizerIs) { EXPECT_THAT(checked(build_.string(), text()), ElementsAre()); }

TEST_F(Comparable, AnotherTokenizerIsNot) {
  const std::string reversed = with_tokens([](std::vector<std::string>& tokens) { std::ranges::reverse(tokens); });
  EXPECT_ERROR(checked(reversed, text()), ErrorKind::kFormat, "changed.gguf: has another tokenizer than the original: ");
}

TEST_F(Comparable, TokensThatTheTextHasNotMayHaveOtherNames) {
  const ChunkedText chunked = text();
  std::set<int32_t> used(chunked.chunks.front().tokens.begin(), chunked.chunks.front().tokens.end());
  const std::string renamed = with_tokens([&](std::vector<std::string>& tokens) {
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (!used.contains(static_cast<int32_t>(id))) tokens[id] = "[PAD" + std::to_string(id) + "]";
    }
  });
  EXPECT_THAT(checked(renamed, chunked), ElementsAre());
}

TEST_F(Comparable, AReferenceKnowsItsVocabulary) {
  const ChunkedText chunked = text();
  ComparisonBasis basis = basis_of(*original_, chunked);
  basis.tokens = nullptr;
  basis.tokens_sha256 = tokens_sha256(original_->metadata());
  const std::string own = build_.string();
  const std::string other = with_tokens([](std::vector<std::string>& tokens) { tokens[300] += "x"; });
  EXPECT_THAT(check_comparable(std::span(&own, 1), basis), ElementsAre());
  EXPECT_THAT(check_comparable(std::span(&other, 1), basis), ElementsAre(HasSubstr("is not the one that the reference was made with")));
}

TEST_F(Comparable, ContextsBehindTheTrainedOneAreNamed) {
  const int64_t trained = original_->metadata().get_int("llama.context_length");
  EXPECT_EQ(context_warning(original_->metadata(), trained), "");
  EXPECT_THAT(context_warning(original_->metadata(), trained + 1),
              HasSubstr("chunks of " + std::to_string(trained + 1) + " tokens are longer than the context of " + std::to_string(trained)));
}

TEST_F(Comparable, WhatEditorsDoToTextsIsNamed) {
  const std::string line = "The miller ground what the farmers brought him, and he was paid in flour.\n";
  std::string long_text, windows;
  for (int i = 0; i < 10; ++i) {
    long_text += line;
    windows += line.substr(0, line.size() - 1) + "\r\n";
  }
  write(long_text);
  EXPECT_THAT(text(32).warnings, ElementsAre());
  write("\xEF\xBB\xBF" + long_text);
  EXPECT_THAT(text(32).warnings, ElementsAre(HasSubstr("text.txt begins with a byte order mark")));
  write(windows);
  EXPECT_THAT(text(32).warnings, ElementsAre(HasSubstr("has line ends of Windows (CR LF)")));
  for (const char* mark : {"\xFF\xFE", "\xFE\xFF"}) {
    write(mark + long_text);
    EXPECT_ERROR(text(32), ErrorKind::kFormat, "text.txt: is UTF-16");
  }
}

}  // namespace
}  // namespace quern
