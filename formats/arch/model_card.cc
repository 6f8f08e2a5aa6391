#include "formats/arch/model_card.h"

#include <algorithm>

// Front matter is read line by line with two pieces of state: the top-level key that items belong to, and whether indented lines below it
// are a structure that is not read. A key without a value that is followed by an indented mapping is such a structure, up to the next
// top-level key. Nothing counts before the closing line has been seen, so a README that merely begins with a rule has no front matter. Each
// line is looked at once and items are capped, which bounds the work.

namespace quern {

namespace {

constexpr size_t kMaxBytes = size_t{64} << 10;
constexpr size_t kMaxItems = 256;
constexpr size_t kMaxItemBytes = 1024;

std::string_view trim(std::string_view s) {
  const size_t first = s.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return s.substr(first, s.find_last_not_of(" \t\r") - first + 1);
}

std::string_view next_line(std::string_view& text) {
  const size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

// The scalar at the start of `s`, which loses it: quoted, or plain up to one of `ends` or a comment.
std::string take_scalar(std::string_view& s, std::string_view ends) {
  s = trim(s);
  std::string value;
  if (!s.empty() && (s.front() == '"' || s.front() == '\'')) {
    const char quote = s.front();
    size_t i = 1;
    for (; i < s.size() && s[i] != quote; ++i) {
      if (quote == '"' && s[i] == '\\' && i + 1 < s.size()) ++i;
      value += s[i];
    }
    s.remove_prefix(std::min(i + 1, s.size()));
    return value;
  }
  size_t end = std::min(s.find(" #"), s.find_first_of(ends));
  if (s.starts_with('#')) end = 0;
  value = trim(s.substr(0, end));
  s.remove_prefix(std::min(end, s.size()));
  return value;
}

bool is_plain_text(std::string_view s) {
  return std::none_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

void add_item(std::vector<std::string>& items, std::string value) {
  if (value.empty() || value == "null" || value == "~") return;
  if (items.size() >= kMaxItems || value.size() > kMaxItemBytes || !is_plain_text(value)) return;
  items.push_back(std::move(value));
}

// "[a, 'b, c', d]" without its first bracket.
void add_inline_list(std::vector<std::string>& items, std::string_view s) {
  while (!trim(s).empty() && trim(s).front() != ']') {
    add_item(items, take_scalar(s, ",]"));
    s = trim(s);
    if (s.empty() || s.front() != ',') return;
    s.remove_prefix(1);
  }
}

// What follows "key:" on its line.
void add_value(std::vector<std::string>& items, std::string_view s) {
  s = trim(s);
  if (s.empty() || s.front() == '|' || s.front() == '>' || s.front() == '{' || s.front() == '&' || s.front() == '!') return;
  if (s.front() == '[') {
    add_inline_list(items, s.substr(1));
  } else {
    add_item(items, take_scalar(s, ""));
  }
}

// A list item; one that is itself a mapping ("- name: x") is skipped.
void add_dashed(std::vector<std::string>& items, std::string_view s) {
  s = trim(s);
  const bool quoted = s.starts_with('"') || s.starts_with('\'');
  if (s.empty() || s.front() == '[' || s.front() == '{' || (!quoted && (s.find(": ") != std::string_view::npos || s.ends_with(':'))))
    return;
  add_item(items, take_scalar(s, ""));
}

}  // namespace

ModelCard ModelCard::parse(std::string_view readme) {
  ModelCard card;
  std::string_view text = readme.substr(0, kMaxBytes);
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (trim(next_line(text)) != "---") return card;

  std::vector<std::string>* items = nullptr;  // of the current top-level key
  bool in_mapping = false;                    // lines below belong to a nested structure
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    const std::string_view content = trim(line);
    if (content == "---" || content == "...") return card;
    if (content.empty() || content.front() == '#') continue;
    if (content.starts_with("- ")) {
      if (items != nullptr && !in_mapping) add_dashed(*items, content.substr(2));
      continue;
    }
    if (line.front() == ' ' || line.front() == '\t') {
      in_mapping = items == nullptr || items->empty();  // "key:" followed by an indented mapping
      continue;
    }
    const size_t colon = content.find(':');
    items = nullptr;
    in_mapping = false;
    if (colon == std::string_view::npos || (colon + 1 < content.size() && content[colon + 1] != ' ')) continue;
    items = &card.fields_[std::string(content.substr(0, colon))];
    items->clear();
    add_value(*items, content.substr(colon + 1));
  }
  return ModelCard();  // no closing line: not a front matter
}

std::string ModelCard::text(std::string_view key) const {
  const auto it = fields_.find(key);
  return it == fields_.end() || it->second.empty() ? std::string() : it->second.front();
}

std::vector<std::string> ModelCard::list(std::string_view key) const {
  const auto it = fields_.find(key);
  return it == fields_.end() ? std::vector<std::string>() : it->second;
}

}  // namespace quern
