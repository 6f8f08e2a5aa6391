#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// Finds the special tokens of a text: leftmost first, at each place the longest. The texts are kept sorted, so that those that agree
// with the input so far are a range, which every further byte narrows: O(length of the match x log of the number of tokens) per
// place, and places whose first byte begins no token cost a table look-up.
class SpecialMatcher {
 public:
  struct Token {
    std::string text;
    int32_t id = 0;
  };
  struct Match {
    size_t offset = 0;
    size_t length = 0;  // 0: nothing found
    int32_t id = -1;
  };

  SpecialMatcher() = default;
  explicit SpecialMatcher(std::vector<Token> tokens);  // empty texts are left out

  Match find(std::string_view text, size_t from) const;

 private:
  Match longest_at(std::string_view text, size_t offset) const;

  std::vector<Token> tokens_;  // sorted by text
  std::array<bool, 256> first_bytes_{};
};

}  // namespace quern
