#include "formats/base/json_tree.h"

#include <nlohmann/json.hpp>

#include "formats/base/utf8.h"
#include "tests/formats/expect_error.h"

namespace quern {
namespace {

using ::testing::ElementsAre;

nlohmann::json python(const std::string& text) {
  std::vector<std::string> repeated;
  return parse_python_json(text, 4, repeated);
}

TEST(JsonTree, RefusesAKeyThatOccursTwice) {
  EXPECT_ERROR(parse_json_tree(R"({"a": {"b": 1, "b": 1}})", 4), ErrorKind::kFormat, "the key 'b' occurs twice");
  EXPECT_NO_THROW(parse_json_tree(R"({"a": {"b": 1}, "b": 2})", 4));
}

TEST(JsonTree, TakesTheLastOfRepeatedKeysFromPython) {
  std::vector<std::string> repeated;
  const nlohmann::json tree = parse_python_json(R"({"a": 1, "b": 2, "a": 3})", 4, repeated);
  EXPECT_EQ(tree["a"], 3);
  EXPECT_THAT(repeated, ElementsAre("a"));
}

TEST(JsonTree, KnowsPythonsNumbersOutsideOfStrings) {
  const nlohmann::json tree = python(R"({"a": [NaN,-Infinity], "b": Infinity, "NaN \" NaN": "is NaN", "c": -1})");
  EXPECT_EQ(tree["a"], nlohmann::json::array({"NaN", "-Infinity"}));
  EXPECT_EQ(tree["b"], "Infinity");
  EXPECT_EQ(tree["NaN \" NaN"], "is NaN");
  EXPECT_EQ(tree["c"], -1);
  EXPECT_THROW(python(R"({"a": NaNs})"), Error);
  EXPECT_THROW(parse_json_tree(R"({"a": NaN})", 4), Error);
}

TEST(JsonTree, SaysWhatTextIsInsteadOfJson) {
  EXPECT_ERROR(python("\xFF\xFE{"), ErrorKind::kFormat, "is UTF-16, save it as UTF-8");
  EXPECT_ERROR(python("{\"a\": \"\xE9\"}"), ErrorKind::kFormat, "not UTF-8");
  EXPECT_ERROR(python(R"({"a": "\ud83d"})"), ErrorKind::kFormat, "half of a character");
  EXPECT_ERROR(python("{"), ErrorKind::kFormat, "not valid JSON");
}

TEST(Utf8, FindsTheFirstByteThatIsInvalid) {
  EXPECT_EQ(find_invalid_utf8("aé中😀"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("a\x80"), 1U);
  EXPECT_EQ(find_invalid_utf8("ab\xC3"), 2U);
  EXPECT_EQ(find_invalid_utf8("\xC0\x80"), 0U);
}

}  // namespace
}  // namespace quern
