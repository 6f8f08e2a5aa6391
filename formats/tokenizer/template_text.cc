#include "formats/tokenizer/template_text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

#include <nlohmann/json.hpp>

#include "formats/base/utf8.h"

// A template is text with three kinds of tags: {{ expressions }}, {% statements %} and {# comments #}. Jinja's own lexer ends a tag at its
// mark outside of strings and brackets, and so does this one; of a statement only its first word is read. Words that open a block go on a
// stack, words that begin with "end" must meet their own, and what is left on the stack at the end is not closed. Words that are not
// known, as extensions bring them, are passed over. What a raw block holds is text.

namespace quern {
namespace {

constexpr std::array<std::string_view, 9> kBlocks = {"if", "for", "macro", "call", "filter", "block", "with", "generation", "set"};
constexpr std::string_view kBlanks = " \t\r\n";

bool is_block(std::string_view word) { return std::ranges::find(kBlocks, word) != kBlocks.end(); }

class BlockScanner {
 public:
  explicit BlockScanner(std::string_view text) : text_(text) {}

  std::optional<TemplateFault> run() {
    while (!fault_ && next_tag()) {
    }
    if (!fault_ && !open_.empty()) fail(open_.back().at, in_braces(open_.back().word) + " is never closed");
    return std::move(fault_);
  }

 private:
  struct Block {
    std::string_view word;
    size_t at;
  };

  static std::string in_braces(std::string_view word) { return "'{% " + std::string(word) + "'"; }

  void fail(size_t at, std::string message) { fault_ = TemplateFault{at, std::move(message)}; }

  // Reads up to the end of the next tag; false when there is none.
  bool next_tag() {
    const size_t at = text_.find('{', position_);
    if (at == std::string_view::npos || at + 1 == text_.size()) return false;
    position_ = at + 2;
    switch (text_[at + 1]) {
      case '#':
        skip_past(at, "#}");
        return true;
      case '{':
        read_to("}}", at);
        return true;
      case '%':
        statement(at);
        return true;
      default:
        position_ = at + 1;
        return true;
    }
  }

  void skip_past(size_t at, std::string_view mark) {
    const size_t end = text_.find(mark, position_);
    if (end == std::string_view::npos) return fail(at, "'" + std::string(text_.substr(at, 2)) + "' is never closed");
    position_ = end + mark.size();
  }

  // What is between the tag's marks; `assigns_` tells whether a '=' stands there outside of strings and brackets.
  std::string_view read_to(std::string_view mark, size_t at) {
    const size_t begin = position_;
    size_t depth = 0;
    assigns_ = false;
    for (size_t i = begin; i < text_.size(); ++i) {
      const char c = text_[i];
      if (depth == 0 && text_.substr(i).starts_with(mark)) {
        position_ = i + mark.size();
        return text_.substr(begin, i - begin);
      }
      if (c == '\'' || c == '"') i = end_of_string(i);
      if (c == '(' || c == '[' || c == '{') ++depth;
      if (depth > 0 && (c == ')' || c == ']' || c == '}')) --depth;
      assigns_ = assigns_ || (depth == 0 && c == '=');
    }
    fail(at, "'" + std::string(text_.substr(at, 2)) + "' is never closed");
    return {};
  }

  size_t end_of_string(size_t at) const {
    size_t i = at + 1;
    while (i < text_.size() && text_[i] != text_[at]) i += text_[i] == '\\' ? 2 : 1;
    return i;
  }

  void statement(size_t at) {
    std::string_view body = read_to("%}", at);
    if (fault_) return;
    if (body.starts_with('-') || body.starts_with('+')) body.remove_prefix(1);
    body.remove_prefix(std::min(body.find_first_not_of(kBlanks), body.size()));
    const auto is_letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; };
    const std::string_view word(body.begin(), std::ranges::find_if_not(body, is_letter));
    if (word == "raw") {
      skip_raw(at);
    } else if (word == "else" || word == "elif") {
      const bool fits = !open_.empty() && (open_.back().word == "if" || (word == "else" && open_.back().word == "for"));
      if (!fits) fail(at, in_braces(word) + " belongs to no '{% if'");
    } else if (word.starts_with("end") && is_block(word.substr(3))) {
      close(at, word);
    } else if (is_block(word) && !(word == "set" && assigns_)) {
      open_.push_back({word, at});
    }
  }

  void skip_raw(size_t at) {
    while (!fault_) {
      skip_past(at, "{%");
      const size_t word = text_.find_first_not_of("-+ \t\r\n", position_);
      if (word != std::string_view::npos && text_.substr(word).starts_with("endraw")) return skip_past(at, "%}");
    }
  }

  void close(size_t at, std::string_view word) {
    if (open_.empty()) return fail(at, in_braces(word) + " closes nothing");
    if (open_.back().word != word.substr(3)) {
      return fail(open_.back().at, in_braces(open_.back().word) + " is closed by " + in_braces(word));
    }
    open_.pop_back();
  }

  std::string_view text_;
  size_t position_ = 0;
  bool assigns_ = false;
  std::vector<Block> open_;
  std::optional<TemplateFault> fault_;
};

// Templates may begin with '{' too, but then with a tag, which is not JSON.
bool is_json(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  return std::string_view("{[\"").find(text[first]) != std::string_view::npos && nlohmann::json::accept(text);
}

}  // namespace

std::optional<TemplateFault> find_template_fault(std::string_view text) {
  if (is_utf16(text)) return TemplateFault{0, "is UTF-16; save it as UTF-8"};
  if (const auto at = find_invalid_utf8(text)) return TemplateFault{*at, "has bytes that are not UTF-8"};
  const size_t mark = text.starts_with(kUtf8Mark) ? kUtf8Mark.size() : 0;
  if (text.find_first_not_of(kBlanks, mark) == std::string_view::npos) return TemplateFault{0, "is empty"};
  if (is_json(text.substr(mark))) return TemplateFault{0, "is JSON, not a Jinja template"};
  return BlockScanner(text).run();
}

std::string normal_template(std::string_view text) {
  if (text.starts_with(kUtf8Mark)) text.remove_prefix(kUtf8Mark.size());
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const bool ends_line = text[i] == '\r';
    if (ends_line && i + 1 < text.size() && text[i + 1] == '\n') continue;
    out += ends_line ? '\n' : text[i];
  }
  return out;
}

}  // namespace quern
