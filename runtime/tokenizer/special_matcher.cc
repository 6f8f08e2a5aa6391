#include "runtime/tokenizer/special_matcher.h"

#include <algorithm>

namespace quern {

SpecialMatcher::SpecialMatcher(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const Token& token) { return token.text.empty(); });
  std::ranges::stable_sort(tokens_, {}, &Token::text);
  for (const Token& token : tokens_) first_bytes_[static_cast<unsigned char>(token.text[0])] = true;
}

SpecialMatcher::Match SpecialMatcher::find(std::string_view text, size_t from) const {
  for (size_t offset = from; offset < text.size(); ++offset) {
    if (!first_bytes_[static_cast<unsigned char>(text[offset])]) continue;
    const Match match = longest_at(text, offset);
    if (match.length > 0) return match;
  }
  return {};
}

SpecialMatcher::Match SpecialMatcher::longest_at(std::string_view text, size_t offset) const {
  Match match;
  auto low = tokens_.begin();
  auto high = tokens_.end();
  for (size_t n = 0; low != high && offset + n < text.size(); ++n) {
    // All texts of the range begin with the n bytes before this one; those that end there come first.
    const auto byte_of = [n](const Token& token) { return token.text.size() > n ? static_cast<unsigned char>(token.text[n]) : -1; };
    const int byte = static_cast<unsigned char>(text[offset + n]);
    low = std::ranges::lower_bound(low, high, byte, {}, byte_of);
    high = std::ranges::upper_bound(low, high, byte, {}, byte_of);
    if (low != high && low->text.size() == n + 1) match = {offset, n + 1, low->id};
  }
  return match;
}

}  // namespace quern
