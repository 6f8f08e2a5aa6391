#include "verify/draw/markdown.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

TEST(Markdown, OrdinaryNamesStayAsTheyAre) {
  EXPECT_EQ(escape_markdown("Mini-Llama3-1.4M-Q4_K_M (3 files)"), "Mini-Llama3-1.4M-Q4_K_M (3 files)");
  EXPECT_EQ(code_span("wiki.test.raw"), "`wiki.test.raw`");
  EXPECT_EQ(link_target("Q4_K_M/Mini-00001-of-00003.gguf"), "Q4_K_M/Mini-00001-of-00003.gguf");
}

TEST(Markdown, NamesMeanNothing) {
  EXPECT_EQ(escape_markdown("a|b"), "a\\|b");
  EXPECT_EQ(escape_markdown("[free](http://x)"), "\\[free\\](http://x)");
  EXPECT_EQ(escape_markdown("**big** _and_ ~~not~~"), "\\*\\*big\\*\\* \\_and\\_ \\~\\~not\\~\\~");
  EXPECT_EQ(escape_markdown("<script>&amp;"), "&lt;script&gt;&amp;amp;");
  EXPECT_EQ(escape_markdown("a\n# b\\"), "a # b\\\\");
  EXPECT_EQ(escape_markdown("bad\xFF!"), "bad\xEF\xBF\xBD!");
}

TEST(Markdown, CodeGetsMarksThatItDoesNotHave) {
  EXPECT_EQ(code_span("a`b``c"), "``` a`b``c ```");
  EXPECT_EQ(code_span("two\nlines"), "`two lines`");
  EXPECT_EQ(code_block("x\n"), "```\nx\n```\n");
  EXPECT_EQ(code_block("```\n# out"), "````\n```\n# out\n````\n");
}

TEST(Markdown, TargetsOfLinksEndWhereTheyShould) {
  EXPECT_EQ(link_target("a b)(c.gguf"), "a%20b%29%28c.gguf");
  EXPECT_EQ(link_target("\xC3\xA9"), "%C3%A9");
}

}  // namespace
}  // namespace quern
