#pragma once

#include <string_view>

namespace quern::page {

// The text of style.css, which CMake makes part of the library.
std::string_view style_sheet();

}  // namespace quern::page
