#pragma once

#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;

namespace quern {

// A regular expression (PCRE2) that is searched in tensor names. The steps of one search are bounded, so that a pattern from a hostile
// file costs an error and not an hour.
class NamePattern {
 public:
  explicit NamePattern(const std::string& expression);  // throws kUsage with the reason

  // Throws kUsage when the search takes more steps than any sensible pattern needs.
  bool found_in(std::string_view name) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const noexcept;
  };
  std::string expression_;
  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;
};

}  // namespace quern
