#include "verify/report/report_page.h"

#include <cmath>
#include <cstdio>

#include "verify/draw/markup.h"
#include "verify/draw/plot_canvas.h"

namespace quern::page {
namespace {

std::string variables(const plot::Theme& theme, const char* good, const char* bad) {
  return std::string("--paper:") + theme.paper + ";--ink:" + theme.ink + ";--muted:" + theme.muted + ";--line:" + theme.grid +
         ";--tint:" + theme.tint + ";--soft:" + theme.none + ";--accent:" + theme.series[0] + ";--good:" + good + ";--bad:" + bad + ";";
}

std::string style() {
  const std::string light = variables(plot::kLightTheme, "#1b6e5c", "#9a3412"), dark = variables(plot::kDarkTheme, "#5ecea4", "#f9a37d");
  return ":root{color-scheme:light dark;" + light + "}@media (prefers-color-scheme:dark){:root{" + dark + "}}" +
         R"css(
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;overflow-wrap:anywhere}
main{max-width:860px;margin:0 auto;padding:56px 20px 40px}
h1{font-size:clamp(28px,6vw,42px);line-height:1.12;letter-spacing:-.022em;font-weight:680;margin:6px 0 18px}
h2{font-size:21px;line-height:1.3;letter-spacing:-.01em;font-weight:640;margin:0 0 12px}
h3{font-size:16px;font-weight:640;margin:26px 0 8px}
p{margin:0 0 14px;max-width:44em}
section{margin:52px 0 0}
a{color:inherit}
.eyebrow{color:var(--muted);font-size:13px;font-weight:600;letter-spacing:.02em;margin:0}
.lead{font-size:19px;line-height:1.5;margin:0 0 16px}
.meta,figcaption,.note{color:var(--muted);font-size:14px;line-height:1.5}
.meta{margin:0}
.note{margin-top:12px}
.warning{border-left:3px solid var(--bad);padding:4px 0 4px 14px}
figure{margin:18px 0 0}
figcaption{margin-top:10px;max-width:48em}
.narrow{display:none}
.choices{list-style:none;margin:0;padding:0;border-top:1px solid var(--line)}
.choices li{display:grid;grid-template-columns:5.5em minmax(10em,auto) 1fr;gap:2px 20px;align-items:baseline;padding:11px 0;border-bottom:1px solid var(--line)}
.choices .size{font-variant-numeric:tabular-nums;color:var(--muted);text-align:right}
.choices .name{font-weight:640}
.scroll{overflow-x:auto;margin:14px 0 0;-webkit-overflow-scrolling:touch}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:14px;line-height:20px;font-variant-numeric:tabular-nums}
th{font-weight:500;color:var(--muted);font-size:13px;vertical-align:bottom;border-bottom:1px solid var(--muted)}
th,td{padding:8px 0 8px 18px;text-align:right;white-space:nowrap;overflow-wrap:normal}
th{white-space:normal}
td{border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;padding-left:0;position:sticky;left:0;background:var(--paper)}
td:first-child{font-weight:600}
th.text,td.text{text-align:left;overflow-wrap:normal}
td.wrap{white-space:normal;min-width:15em;text-align:left;overflow-wrap:anywhere}
tr.reference td{color:var(--muted);font-weight:400}
.error{color:var(--muted)}
.better{color:var(--good);font-weight:600}
.worse{color:var(--bad);font-weight:600}
.same{color:var(--muted)}
dl{display:grid;grid-template-columns:auto 1fr;gap:6px 22px;margin:0}
dt{color:var(--muted)}
dd{margin:0;min-width:0}
pre,code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace;font-size:13px}
pre{background:var(--soft);border-radius:6px;padding:13px 15px;overflow-x:auto;line-height:1.6;margin:10px 0 14px}
details{border-top:1px solid var(--line);padding:4px 0}
details:last-of-type{border-bottom:1px solid var(--line)}
summary{cursor:pointer;padding:8px 0;font-weight:600}
summary span{font-weight:400;color:var(--muted);margin-left:10px}
summary:focus-visible,a:focus-visible,.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
details figure{margin:8px 0 18px}
figure+details,.scroll+details{margin-top:22px}
footer{margin:60px 0 0;padding-top:16px;border-top:1px solid var(--line);color:var(--muted);font-size:13px}
@media (max-width:660px){main{padding:32px 20px 32px}section{margin-top:44px}.wide{display:none}.narrow{display:block}
.lead{font-size:18px}.choices li{grid-template-columns:1fr auto}.choices .size{order:2}.choices .name{order:1}.choices .verdict{order:3;grid-column:1/3}
th,td{padding-left:16px}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:10px}summary span{display:block;margin:0 0 0 16px}}
@page{margin:16mm 14mm}
@media print{:root{color-scheme:light;)css" +
         light +
         R"css(}body{font-size:10.5pt}main{max-width:none;padding:0}section{margin-top:26pt}h2,h3,summary{break-after:avoid}th:first-child,td:first-child{position:static}
figure,tr,li,pre{break-inside:avoid}.wide{display:block}.narrow{display:none}.scroll{overflow:visible}table{font-size:8.5pt}th,td{padding-left:8pt}
td.wrap{min-width:9em}details::details-content{content-visibility:visible;block-size:auto}pre{white-space:pre-wrap}}
)css" + plot::style_rules();
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

std::string table(const std::vector<std::string>& headings, const std::vector<std::vector<Cell>>& rows) {
  std::string html = "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>";
  for (const std::string& heading : headings) {
    const bool is_text = heading.ends_with(' ');
    html += "<th scope=\"col\"" + std::string(is_text ? " class=\"text\"" : "") + ">" + escape_markup(heading) + "</th>";
  }
  html += "</tr></thead>\n<tbody>\n";
  for (const std::vector<Cell>& row : rows) {
    const bool is_reference = !row.empty() && row.front().css_class == "reference";
    html += is_reference ? "<tr class=\"reference\">" : "<tr>";
    for (const Cell& cell : row) {
      html += cell.css_class.empty() || cell.css_class == "reference" ? "<td>" : "<td class=\"" + cell.css_class + "\">";
      html += cell.html + "</td>";
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
  if (error > 0.0) html += "<span class=\"error\"> ± " + decimal(error * scale, decimals) + "</span>";
  if (!unit.empty()) html += " " + escape_markup(unit);
  return {html};
}

}  // namespace quern::page
