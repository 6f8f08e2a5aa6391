#include "formats/tokenizer/template_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using ::testing::HasSubstr;

std::string fault_of(std::string_view text) {
  const auto fault = find_template_fault(text);
  return fault ? fault->message : "";
}

TEST(TemplateText, AcceptsWhatJinjaAccepts) {
  for (const char* text : {
           "{% for m in messages %}{% if m.role == 'user' %}{{ m['content'] }}{% elif x %}y{% else %}z{% endif %}{% else %}none{% endfor "
           "%}",
           "{%- set ns = namespace(found=false) -%}{% set x %}a{% endset %}{%+ set y = {'a': {'b': 1}} %}",
           "{{ {'a': {'b': '}}'}} }} {% if \"%}\" in x %}a{% endif %} {# {% if #} {{ '{%' }} { % } {",
           "{% raw %}{% if {{ {% endfor %}{% endraw %}{% macro f(x='it\\'s') %}{% endmacro %}{% call(u) f() %}{% endcall %}",
           "{% generation %}a{% endgeneration %}{% break %}{% do x.append(1) %}{% unknown %}",
           "\xEF\xBB\xBFplain text",
       }) {
    EXPECT_EQ(fault_of(text), "") << text;
  }
}

TEST(TemplateText, FindsWhatIsNeverClosed) {
  EXPECT_EQ(fault_of("a{% if x %}b"), "'{% if' is never closed");
  EXPECT_EQ(fault_of("{% for a in b %}{% if x %}{% endfor %}"), "'{% if' is closed by '{% endfor'");
  EXPECT_EQ(fault_of("{% endif %}"), "'{% endif' closes nothing");
  EXPECT_EQ(fault_of("{% set x %}a"), "'{% set' is never closed");
  EXPECT_EQ(fault_of("{% for a in b %}{% elif x %}{% endfor %}"), "'{% elif' belongs to no '{% if'");
  EXPECT_EQ(fault_of("{{ a"), "'{{' is never closed");
  EXPECT_EQ(fault_of("{{ 'a }}"), "'{{' is never closed");
  EXPECT_EQ(fault_of("{% if a"), "'{%' is never closed");
  EXPECT_EQ(fault_of("{# a"), "'{#' is never closed");
  EXPECT_EQ(fault_of("{% raw %}{% if"), "'{%' is never closed");
  EXPECT_EQ(find_template_fault("ab{% if x %}")->at, 2U);
}

TEST(TemplateText, FindsTextsThatAreNoTemplates) {
  EXPECT_THAT(fault_of(std::string_view("\xFF\xFE{\0", 4)), HasSubstr("UTF-16"));
  EXPECT_THAT(fault_of("a\xFFz"), HasSubstr("not UTF-8"));
  EXPECT_THAT(fault_of(" \r\n"), HasSubstr("empty"));
  EXPECT_THAT(fault_of("{\"chat_template\": \"{{ x }}\"}"), HasSubstr("JSON"));
  EXPECT_THAT(fault_of("\xEF\xBB\xBF \"{{ x }}\\n\""), HasSubstr("JSON"));
}

TEST(TemplateText, NormalisesMarkAndLineEnds) {
  EXPECT_EQ(normal_template("\xEF\xBB\xBF"
                            "a\r\nb\rc\nd\r"),
            "a\nb\nc\nd\n");
}

// Public templates have all kinds of blocks; a cut one ends inside of one or of a tag, unless it ends between two.
TEST(TemplateText, FindsNoFaultInAWholeTemplateAndSomeInACutOne) {
  const std::string whole = "{% for m in ms %}{% if m %}{{ m }}{% endif %}{% endfor %}";
  EXPECT_EQ(fault_of(whole), "");
  for (size_t n = 2; n < whole.size(); ++n) EXPECT_NE(fault_of(whole.substr(0, n)), "") << n;
}

}  // namespace
}  // namespace quern
