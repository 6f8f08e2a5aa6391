#include <algorithm>
#include <array>
#include <cctype>

#include "formats/base/error.h"
#include "formats/tokenizer/template_text.h"
#include "verify/intact/doctor.h"

// Templates are searched for words and not parsed. What a renderer makes of a template depends on the renderer, and one that was written to
// do harm need not be valid for ours; the ways out of a sandbox, on the other hand, can hardly be spelled without a few well-known names. A
// false alarm costs a look at the line that is named. Each pattern is reported once, where it occurs first, and so are the first invisible
// character and the first word that is too long to be one: whole texts are hidden in either. Jinja lets blanks stand around '|', before
// '(' and after a tag's mark, which may have a '-' or '+': the patterns are spelled without and looked for in a text without them.

namespace quern {
namespace {

struct Pattern {
  std::string_view text;
  Severity severity;
  const char* meaning;
};

// What exploits of Jinja renderers are made of, and what tells a model's user something that a template has no business telling.
constexpr std::array kPatterns = {
    Pattern{"__", Severity::kBroken,
            "double underscores reach Python's internals (__class__, __globals__ ...); renderers without a sandbox run code"},
    Pattern{"|attr(", Severity::kBroken, "attr() reaches attributes by name, the usual way around a filter for double underscores"},
    Pattern{"cycler.", Severity::kBroken, "cycler is a known way to Python's internals"},
    Pattern{"joiner.", Severity::kBroken, "joiner is a known way to Python's internals"},
    Pattern{"lipsum", Severity::kBroken, "lipsum is a known way to Python's internals"},
    Pattern{"popen", Severity::kBroken, "names a function that runs programs"},
    Pattern{"os.system", Severity::kBroken, "names a function that runs programs"},
    Pattern{"subprocess", Severity::kBroken, "names a module that runs programs"},
    Pattern{"eval(", Severity::kBroken, "names a function that runs code"},
    Pattern{"exec(", Severity::kBroken, "names a function that runs code"},
    Pattern{"{%import", Severity::kBroken, "imports another template"},
    Pattern{"{%from", Severity::kBroken, "imports another template"},
    Pattern{"{%include", Severity::kBroken, "includes another template"},
    Pattern{"{%extends", Severity::kBroken, "builds on another template"},
    Pattern{"http://", Severity::kWarning, "holds a web address: text that the model is shown can send its user there"},
    Pattern{"https://", Severity::kWarning, "holds a web address: text that the model is shown can send its user there"},
    Pattern{"<script", Severity::kWarning, "holds a script tag"},
};

constexpr size_t kLongestWord = 200;  // longer runs of base64 characters are not words

// Code points that are not seen and change how others are seen: directions, joiners, tags.
bool is_invisible(uint32_t c) {
  return (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x2069) || c == 0xFEFF ||
         (c >= 0xE0000 && c <= 0xE007F);
}

// The next code point of UTF-8 text; bytes that are none stand for themselves.
uint32_t take_code_point(std::string_view& text) {
  const auto lead = static_cast<unsigned char>(text.front());
  const size_t size = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  uint32_t c = size == 1 ? lead : lead & (0xFFu >> (size + 1));
  const size_t n = std::min(size, text.size());
  for (size_t i = 1; i < n; ++i) c = c << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
  text.remove_prefix(n);
  return c;
}

// A text without the blanks that may stand within a pattern, and where each character was.
class Compact {
 public:
  explicit Compact(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
      const std::string_view rest = text.substr(i);
      keep(text[i], i);
      i += rest.starts_with("{%") ? keep_mark(rest, i) : 1;
      if (text_.back() == '|' || text_.back() == '%') i = skip_blanks(text, i);
      const size_t next = skip_blanks(text, i);
      if (next < text.size() && (text[next] == '|' || text[next] == '(')) i = next;
    }
  }

  // Where in the original the pattern occurs first.
  size_t find(std::string_view pattern) const {
    const size_t at = text_.find(pattern);
    return at == std::string::npos ? at : places_[at];
  }

 private:
  void keep(char c, size_t place) {
    text_ += c;
    places_.push_back(place);
  }

  size_t keep_mark(std::string_view rest, size_t place) {
    keep('%', place + 1);
    return rest.size() > 2 && (rest[2] == '-' || rest[2] == '+') ? 3 : 2;
  }

  static size_t skip_blanks(std::string_view text, size_t i) { return std::min(text.find_first_not_of(" \t\r\n", i), text.size()); }

  std::string text_;
  std::vector<size_t> places_;
};

size_t line_of(std::string_view text, size_t at) {
  return 1 + static_cast<size_t>(std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n'));
}

}  // namespace

void examine_template(std::string_view text, const std::string& where, std::vector<Symptom>& symptoms) {
  const auto add = [&](Severity severity, size_t at, const std::string& message) {
    symptoms.push_back({severity, where, "line " + std::to_string(line_of(text, at)) + ": " + message});
  };
  if (const auto fault = find_template_fault(text)) add(Severity::kBroken, fault->at, fault->message);
  const Compact compact(text);
  for (const Pattern& pattern : kPatterns) {
    const size_t at = compact.find(pattern.text);
    if (at != std::string_view::npos) add(pattern.severity, at, "'" + printable(text.substr(at, 40)) + "': " + pattern.meaning);
  }
  for (std::string_view rest = text; !rest.empty();) {
    const size_t at = text.size() - rest.size();
    if (!is_invisible(take_code_point(rest))) continue;
    add(Severity::kBroken, at, "an invisible character: what is read is not what is shown");
    break;
  }
  size_t run = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool encoded = std::isalnum(static_cast<unsigned char>(text[i])) || text[i] == '+' || text[i] == '/' || text[i] == '=';
    run = encoded ? run + 1 : 0;
    if (run != kLongestWord) continue;
    add(Severity::kWarning, i, "a word of over " + std::to_string(kLongestWord) + " letters, as encoded data has");
    break;
  }
}

}  // namespace quern
