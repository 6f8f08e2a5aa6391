#pragma once

#include <string>
#include <string_view>

namespace quern {

// Text from outside made safe inside Markdown as GitHub and hubs render it: it shows as it is and means nothing.

// One line: invalid UTF-8 becomes U+FFFD, control characters become spaces.
std::string clean_line(std::string_view text);
// In headings, paragraphs and cells of tables: no emphasis, links, code, HTML, or end of the cell.
std::string escape_markdown(std::string_view text);
// Between as many backticks as it takes; not for cells of tables.
std::string code_span(std::string_view text);
// A block of lines between fences that the text does not end.
std::string code_block(std::string_view text);
// A relative path or "org/name" as the target of a link: whatever is not letter, digit or one of "-._~/" as %XX.
std::string link_target(std::string_view path);

}  // namespace quern
