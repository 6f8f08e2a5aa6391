#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace quern::page {

// Pieces of a page that is HTML and XML at once. Functions that take `text` escape it, those that take `html` do not.

std::string element(std::string_view name, std::string_view text, std::string_view css_class = {});
std::string wrap(std::string_view name, std::string_view html, std::string_view css_class = {});

// The whole document; its style holds for light, dark and print.
std::string document(std::string_view title, std::string_view body_html);

std::string section(std::string_view heading, std::string_view html);

// A drawing made twice, for wide screens and paper and for phones, with a caption.
std::string figure(const std::function<std::string(double width)>& draw, std::string_view caption);
inline constexpr double kWide = 820.0, kNarrow = 340.0;

// Commands to paste, one a line.
std::string commands(const std::vector<std::string>& lines);

// A table that scrolls sideways where it does not fit; its first column stays and names the row. `name` says what it shows to who does not
// see it. The first column is text, others are numbers unless their heading ends with a space.
struct Cell {
  std::string html;
  std::string css_class = {};
};
std::string table(std::string_view name, const std::vector<std::string>& headings, const std::vector<std::vector<Cell>>& rows);

Cell text_cell(std::string_view text, std::string_view css_class = {});
// "0.0031 ± 0.0002" with this many decimals; an error of 0 is left out, what is not finite is spelled.
Cell number_cell(double value, double error, int decimals, double scale = 1.0, std::string_view unit = {});

std::string decimal(double value, int decimals);

}  // namespace quern::page
