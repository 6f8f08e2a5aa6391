#pragma once

#include <string>
#include <string_view>

namespace quern {

// Text from outside made safe inside XML and HTML, in content and in quoted attributes: & < > " ' become references. What XML 1.0
// has no way to write (control characters, invalid UTF-8, U+FFFE, U+FFFF) and what would reorder its neighbours on the screen
// (directional overrides and isolates) becomes U+FFFD. Line feeds and tabs become spaces.
std::string escape_markup(std::string_view text);

// Shortened to max_characters (code points) by an ellipsis in the middle, so that the ends, where file names differ, stay.
std::string shorten(std::string_view text, size_t max_characters);

// A number for people: up to `digits` significant digits, no exponent between 1e-4 and 1e6 and superscripts beyond ("1.2 x 10^-7" with
// the real signs), a real minus sign. Infinities and NaN are spelled as such.
std::string readable_number(double value, int digits);
std::string ten_to_the(int exponent);  // "10" with a superscript

}  // namespace quern
