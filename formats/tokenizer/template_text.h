#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace quern {

struct TemplateFault {
  size_t at = 0;        // byte of the text
  std::string message;  // "'{% if' is never closed"
};

// Why the text is no chat template: UTF-16, bytes that are not UTF-8, nothing but blanks, JSON instead of Jinja, a tag or block that is
// never closed or closed by another's end. The first fault; expressions are not looked into, so that nothing is found where renderers
// differ.
std::optional<TemplateFault> find_template_fault(std::string_view text);

// The text as Jinja takes it: without a byte order mark, lines ended by "\n".
std::string normal_template(std::string_view text);

}  // namespace quern
