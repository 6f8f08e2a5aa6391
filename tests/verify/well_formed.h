#pragma once

#include <cctype>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// Checks text as an XML parser would: tags nest and close, attributes are quoted and not repeated, references are known, no character
// is outside XML 1.0. HTML is accepted in the part of it that is XML as well, plus the declaration. Returns what is wrong and where.
class WellFormed {
 public:
  static std::optional<std::string> problem(std::string_view text) {
    WellFormed parser(text);
    parser.run();
    return parser.problem_;
  }

 private:
  explicit WellFormed(std::string_view text) : text_(text) {}

  void fail(const std::string& what) {
    if (!problem_) problem_ = what + " at byte " + std::to_string(at_) + ": " + std::string(text_.substr(at_, 60));
  }
  bool starts(std::string_view prefix) const { return text_.substr(at_).starts_with(prefix); }

  void run() {
    if (starts("<!DOCTYPE html>")) at_ += 15;
    while (!problem_ && at_ < text_.size()) {
      if (starts("</")) {
        end_tag();
      } else if (text_[at_] == '<') {
        start_tag();
      } else if (open_.empty() && std::isspace(static_cast<unsigned char>(text_[at_])) == 0) {
        fail("text outside the root");
      } else {
        character();
      }
    }
    if (!open_.empty()) fail("<" + open_.back() + "> is not closed");
    if (roots_ != 1) fail(std::to_string(roots_) + " root elements");
  }

  std::string name() {
    const size_t start = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || std::string_view("-_:").find(text_[at_]) != std::string_view::npos))
      ++at_;
    if (at_ == start) fail("a name is expected");
    return std::string(text_.substr(start, at_ - start));
  }

  void space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }

  void start_tag() {
    ++at_;
    const std::string element = name();
    std::vector<std::string> seen;
    for (space(); !problem_ && at_ < text_.size() && text_[at_] != '>' && text_[at_] != '/'; space()) {
      const std::string attribute = name();
      for (const std::string& other : seen) {
        if (other == attribute) fail("attribute " + attribute + " is repeated");
      }
      seen.push_back(attribute);
      if (!starts("=\"")) return fail("attribute without a quoted value");
      for (at_ += 2; !problem_ && at_ < text_.size() && text_[at_] != '"';) {
        if (text_[at_] == '<') return fail("< in an attribute");
        character();
      }
      ++at_;
    }
    if (open_.empty()) ++roots_;
    if (starts("/>")) {
      at_ += 2;
      return;
    }
    if (!starts(">")) return fail("a tag does not end");
    ++at_;
    open_.push_back(element);
    if (element != "style") return;
    const size_t end = text_.find("</style>", at_);  // its content is text in HTML; as XML it must not hold markup either
    if (end == std::string_view::npos) return fail("style does not end");
    if (text_.substr(at_, end - at_).find_first_of("<&") != std::string_view::npos) return fail("markup inside style");
    at_ = end;
  }

  void end_tag() {
    at_ += 2;
    const std::string element = name();
    if (open_.empty() || open_.back() != element) return fail("</" + element + "> closes nothing");
    open_.pop_back();
    if (!starts(">")) return fail("an end tag does not end");
    ++at_;
  }

  void character() {
    if (text_[at_] == '&') {
      for (const std::string_view known : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"}) {
        if (!starts(known)) continue;
        at_ += known.size();
        return;
      }
      return fail("an unknown reference");
    }
    const auto byte = static_cast<unsigned char>(text_[at_]);
    if (byte < 0x20 && byte != '\n') return fail("a control character");
    const size_t more = byte < 0x80 ? 0 : byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC2 ? 1 : 9;
    if (more == 9 || at_ + more >= text_.size()) return fail("invalid UTF-8");
    for (size_t i = 1; i <= more; ++i) {
      if ((static_cast<unsigned char>(text_[at_ + i]) & 0xC0) != 0x80) return fail("invalid UTF-8");
    }
    at_ += more + 1;
  }

  std::string_view text_;
  size_t at_ = 0;
  int roots_ = 0;
  std::vector<std::string> open_;
  std::optional<std::string> problem_;
};

}  // namespace quern
