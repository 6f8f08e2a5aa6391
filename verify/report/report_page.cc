#include "verify/report/report_page.h"

#include <cmath>
#include <cstdio>

#include "verify/draw/markup.h"
#include "verify/draw/plot_canvas.h"
#include "verify/report/style_sheet.h"

// The page must look right without a network, so it loads no font, no script and no image. One style sheet is inside it, whose colours are
// variables with values for light and for dark screens; paper takes the light ones. Every figure is drawn twice, wide and narrow, and the
// style shows one of the two: an SVG only shrinks, and its text would shrink with it on a phone.

namespace quern::page {
namespace {

std::string variables(const plot::Theme& theme, const char* good, const char* bad) {
  return std::string("--paper:") + theme.paper + ";--ink:" + theme.ink + ";--muted:" + theme.muted + ";--line:" + theme.grid +
         ";--tint:" + theme.tint + ";--soft:" + theme.none + ";--accent:" + theme.series[0] + ";--good:" + good + ";--bad:" + bad + ";";
}

// style.css, with the colours of the themes; printing takes those of the light one.
std::string style() {
  constexpr std::string_view kLightMark = "/*light*/";
  const std::string light = variables(plot::kLightTheme, "#1b6e5c", "#9a3412"), dark = variables(plot::kDarkTheme, "#5ecea4", "#f9a37d");
  const std::string_view sheet = style_sheet();
  const size_t mark = sheet.find(kLightMark);
  return ":root{color-scheme:light dark;" + light + "}@media (prefers-color-scheme:dark){:root{" + dark + "}}\n" +
         std::string(sheet.substr(0, mark)) + light + std::string(sheet.substr(mark + kLightMark.size())) + plot::style_rules();
}

}  // namespace

std::string wrap(std::string_view name, std::string_view html, std::string_view css_class) {
  std::string out = "<" + std::string(name);
  if (!css_class.empty()) out += " class=\"" + std::string(css_class) + "\"";
  return out + ">" + std::string(html) + "</" + std::string(name) + ">\n";
}

std::string element(std::string_view name, std::string_view text, std::string_view css_class) {
  return wrap(name, escape_markup(text), css_class);
}

// The policy keeps even a mistake of ours from loading or running anything.
std::string document(std::string_view title, std::string_view body_html) {
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n" +
         element("title", title) + "<style>" + style() + "</style>\n</head>\n<body>\n<main>\n" + std::string(body_html) +
         "</main>\n</body>\n</html>\n";
}

std::string section(std::string_view heading, std::string_view html) {
  return wrap("section", "\n" + element("h2", heading) + std::string(html));
}

std::string figure(const std::function<std::string(double)>& draw, std::string_view caption) {
  std::string html = "\n" + wrap("div", draw(kWide), "wide") + wrap("div", draw(kNarrow), "narrow");
  if (!caption.empty()) html += element("figcaption", caption);
  return wrap("figure", html);
}

std::string commands(const std::vector<std::string>& lines) {
  std::string html;
  for (const std::string& line : lines) html += (html.empty() ? "" : "\n") + escape_markup(line);
  return wrap("pre", html);
}

std::string table(std::string_view name, const std::vector<std::string>& headings, const std::vector<std::vector<Cell>>& rows) {
  std::string html = "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"" + escape_markup(name) + "\"><table>" +
                     element("caption", name) + "<thead><tr>";
  for (const std::string& heading : headings) {
    const bool is_text = heading.ends_with(' ');
    html += "<th scope=\"col\"" + std::string(is_text ? " class=\"text\"" : "") + ">" + escape_markup(heading) + "</th>";
  }
  html += "</tr></thead>\n<tbody>\n";
  for (const std::vector<Cell>& row : rows) {
    const bool is_reference = !row.empty() && row.front().css_class == "reference";
    html += is_reference ? "<tr class=\"reference\">" : "<tr>";
    for (const Cell& cell : row) {
      const std::string kind = &cell == &row.front() ? "th" : "td";
      html += "<" + kind + (kind == "th" ? " scope=\"row\"" : "");
      if (!cell.css_class.empty() && cell.css_class != "reference") html += " class=\"" + cell.css_class + "\"";
      html += ">" + cell.html + "</" + kind + ">";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string decimal(double value, int decimals) {
  if (!std::isfinite(value)) return readable_number(value, 3);
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", decimals, std::fabs(value));
  const std::string digits = text;
  const bool is_zero = digits.find_first_not_of("0.") == std::string::npos;
  return (value < 0.0 && !is_zero ? "−" : "") + digits;
}

Cell text_cell(std::string_view text, std::string_view css_class) { return {escape_markup(text), std::string(css_class)}; }

Cell number_cell(double value, double error, int decimals, double scale, std::string_view unit) {
  std::string html = decimal(value * scale, decimals);
  const std::string of_unit = unit.empty() ? "" : " " + escape_markup(unit);
  if (!(error > 0.0)) return {html + of_unit};
  return {html + "<span class=\"error\"> ± " + decimal(error * scale, decimals) + of_unit + "</span>"};
}

}  // namespace quern::page
