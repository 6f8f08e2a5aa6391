#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;

namespace quern {

// Cuts text into words by a list of regular expressions, applied one after the other to the pieces that the ones before left: every
// match becomes a piece, and so does every stretch between matches. Thread-safe.
//
// The expressions are written for Oniguruma (formats/tokenizer/pretokenizers.h) and run in PCRE2 with UTF and UCP, with two
// adaptations. \s is spelled out as Unicode's White_Space, because PCRE2's has U+180E as well. \s+$, which looks for the end of
// the text from every blank of a run, gets a form that does so from the first only: otherwise a run of n blanks costs n^2.
class WordSplitter {
 public:
  explicit WordSplitter(std::span<const std::string_view> expressions);

  // Appends the words of `text` (valid UTF-8), views into it, in order and without gaps. Throws kUnsupported when an expression needs
  // more steps than any text of that length should.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const noexcept;
  };

  std::vector<std::unique_ptr<pcre2_real_code_8, FreeCode>> codes_;
};

}  // namespace quern
