#include "verify/draw/markdown.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

#include "formats/base/utf8.h"
#include "verify/draw/markup.h"

// Markdown has no one way to quote. Characters that HTML cares about become references, as in a page; those that only Markdown knows get
// a backslash, which every renderer takes off any punctuation. An underscore between letters means nothing and stays as it is, because
// types and files are full of them. Code cannot be escaped inside: it gets longer marks around it than any that it has.

namespace quern {
namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || static_cast<unsigned char>(c) >= 0x80; }

size_t longest_run(std::string_view text, char mark) {
  size_t longest = 0, run = 0;
  for (const char c : text) longest = std::max(longest, run = c == mark ? run + 1 : 0);
  return longest;
}

}  // namespace

std::string clean_line(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_sequence_length(text, i);
    const auto byte = static_cast<unsigned char>(text[i]);
    if (length == 0) {
      out += "\xEF\xBF\xBD";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += ' ';
    } else {
      out += text.substr(i, length);
    }
    i += std::max<size_t>(length, 1);
  }
  return out;
}

std::string escape_markdown(std::string_view text) {
  const std::string safe = escape_markup(clean_line(text));
  std::string out;
  for (size_t i = 0; i < safe.size(); ++i) {
    const bool inside = i > 0 && i + 1 < safe.size() && is_word(safe[i - 1]) && is_word(safe[i + 1]);
    if (std::string_view("\\`*[]|~").find(safe[i]) != std::string_view::npos || (safe[i] == '_' && !inside)) out += '\\';
    out += safe[i];
  }
  return out;
}

std::string code_span(std::string_view text) {
  const std::string line = clean_line(text), marks(longest_run(line, '`') + 1, '`');
  const std::string_view space = marks.size() > 1 ? " " : "";
  return marks + std::string(space) + line + std::string(space) + marks;
}

std::string code_block(std::string_view text) {
  const std::string marks(std::max<size_t>(longest_run(text, '`') + 1, 3), '`');
  return marks + "\n" + std::string(text) + (text.ends_with('\n') ? "" : "\n") + marks + "\n";
}

std::string link_target(std::string_view path) {
  std::string out;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte < 0x80 && (std::isalnum(byte) != 0 || std::string_view("-._~/").find(c) != std::string_view::npos);
    char escaped[4];
    std::snprintf(escaped, sizeof escaped, "%%%02X", byte);
    out += plain ? std::string(1, c) : escaped;
  }
  return out;
}

}  // namespace quern
