#include "verify/draw/plot_canvas.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "verify/draw/markup.h"

// Elements are appended as text in the order in which they are drawn, which is the order in which they cover each other. The reader's font
// is not known, so text is measured by classes of characters, a little generously, and a drawing depends on its input alone. Coordinates
// are rounded to a tenth of a pixel: files are smaller, and last digits that differ between machines hardly ever reach them. Coordinates
// that are not finite become 0 rather than make the file invalid.

namespace quern::plot {
namespace {

constexpr double kPadding = 14.0;  // of standalone paper
constexpr const char* kFonts = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif";

std::string colour_rules(const Theme& theme) {
  const std::string plot = ".plot ";
  std::string out;
  const auto rule = [&](const std::string& selector, const char* property, const char* value) {
    out += plot + selector + "{" + property + ":" + value + "}";
  };
  rule(".paper", "fill", theme.paper);
  rule("text", "fill", theme.muted);
  rule(".strong", "fill", theme.ink);
  rule(".axis", "stroke", theme.muted);
  rule(".grid", "stroke", theme.grid);
  rule(".tint", "fill", theme.tint);
  rule(".rule", "stroke", theme.muted);
  rule(".mark", "stroke", theme.paper);
  rule(".halo", "stroke", theme.paper);
  rule(".mean", "stroke", theme.ink);
  rule(".none", "fill", theme.none);
  rule(".none", "stroke", theme.grid);
  rule(".muted", "color", theme.muted);
  for (size_t i = 0; i < theme.series.size(); ++i) rule(".s" + std::to_string(i), "color", theme.series[i]);
  for (size_t i = 0; i < theme.heat.size(); ++i) rule(".h" + std::to_string(i), "fill", theme.heat[i]);
  return out;
}

const char* anchor_name(Anchor anchor) {
  switch (anchor) {
    case Anchor::kStart:
      return "start";
    case Anchor::kMiddle:
      return "middle";
    case Anchor::kEnd:
      return "end";
  }
  return "start";
}

}  // namespace

const Theme kLightTheme = {
    .paper = "#ffffff",
    .ink = "#1c2128",
    .muted = "#59636e",
    .grid = "#e4e7eb",
    .tint = "#eef4fb",
    .none = "#f3f5f7",
    .series = {"#3f8de8", "#934f00", "#238874", "#94155e", "#a7892f", "#564992"},
    .heat = {"#dcebfb", "#bfdaf6", "#9ec6ef", "#7ab0e6", "#5598da", "#357fc8", "#1f66ae", "#124d8c", "#0a3666"},
};
const Theme kDarkTheme = {
    .paper = "#15181d",
    .ink = "#e6e9ee",
    .muted = "#9aa4b0",
    .grid = "#2b3139",
    .tint = "#1b2430",
    .none = "#1d2127",
    .series = {"#0798ee", "#f86a34", "#5ecea4", "#aa678c", "#e3b844", "#c2b9fa"},
    .heat = {"#16304b", "#183d63", "#1b4c7d", "#215d99", "#2f71b5", "#4a88cb", "#6ea2dc", "#98beea", "#c8def6"},
};

std::string style_rules() {
  return ".plot{display:block;max-width:100%;height:auto;overflow:visible}.plot "
         "text{font-size:12px;stroke:none;font-variant-numeric:tabular-nums}"
         ".plot .title{font-size:16px;font-weight:600}"
         ".plot .axis,.plot .grid{stroke-width:1;fill:none;shape-rendering:crispEdges}"
         ".plot .rule{stroke-width:1.5;stroke-dasharray:5 4;fill:none}"
         ".plot .curve{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
         ".plot .dashed .curve{stroke-dasharray:6 4}"
         ".plot .bar{stroke:currentColor;stroke-width:1.5;fill:none}.plot .leader{stroke:currentColor;stroke-width:1;fill:none;opacity:.5}"
         ".plot .mark{fill:currentColor;stroke-width:1.5}.plot .area{fill:currentColor;opacity:.85}"
         ".plot .mean{stroke-width:1.5;fill:none}"
         ".plot .halo{stroke-width:3;stroke-linejoin:round;paint-order:stroke}.plot .none{stroke-width:1}" +
         colour_rules(kLightTheme) + "@media (prefers-color-scheme:dark){" + colour_rules(kDarkTheme) + "}@media print{" +
         colour_rules(kLightTheme) + "}";
}

double Box::overlap(const Box& other) const noexcept {
  const double w = std::min(x + width, other.x + other.width) - std::max(x, other.x);
  const double h = std::min(y + height, other.y + other.height) - std::max(y, other.y);
  return w > 0.0 && h > 0.0 ? w * h : 0.0;
}

double text_width(std::string_view text) {
  double ems = 0.0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if ((byte & 0xC0) == 0x80) continue;  // the rest of a code point
    if (byte >= 0x80) {
      ems += byte >= 0xE3 ? 1.0 : 0.6;  // East Asian characters are square
    } else if (std::string_view("iljI.,:;'|!()[]/ ft").find(c) != std::string_view::npos) {
      ems += 0.34;
    } else if (std::string_view("mwMW@%").find(c) != std::string_view::npos) {
      ems += 0.88;
    } else if (c >= 'A' && c <= 'Z') {
      ems += 0.69;
    } else {
      ems += 0.58;
    }
  }
  return ems * kTextSize;
}

std::string fit_text(std::string_view text, double width) {
  for (size_t n = text.size(); n > 3; --n) {
    std::string candidate = shorten(text, n);
    if (text_width(candidate) <= width) return candidate;
  }
  return shorten(text, 3);
}

std::string coordinate(double value) {
  if (!std::isfinite(value)) value = 0.0;
  const double rounded = std::round(std::clamp(value, -1e6, 1e6) * 10.0) / 10.0;
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", rounded);
  std::string out = text;
  if (out.ends_with(".0")) out.resize(out.size() - 2);
  return out == "-0" ? "0" : out;
}

Canvas::Canvas(const Frame& frame) : frame_(frame), top_(frame.standalone && !frame.title.empty() ? kTitleSize + 14.0 : 0.0) {
  if (top_ > 0.0) text(0.0, kTitleSize, Anchor::kStart, "title strong", frame.title);
}

void Canvas::rect(const Box& box, std::string_view css_class, std::string_view tooltip, double radius) {
  body_ += "<rect class=\"" + std::string(css_class) + "\" x=\"" + coordinate(box.x) + "\" y=\"" + coordinate(box.y) + "\" width=\"" +
           coordinate(std::max(0.0, box.width)) + "\" height=\"" + coordinate(std::max(0.0, box.height)) + "\"";
  if (radius > 0.0) body_ += " rx=\"" + coordinate(radius) + "\"";
  body_ += tooltip.empty() ? "/>\n" : "><title>" + escape_markup(tooltip) + "</title></rect>\n";
}

void Canvas::line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  path("M" + coordinate(x1) + " " + coordinate(y1) + "L" + coordinate(x2) + " " + coordinate(y2), css_class);
}

void Canvas::circle(double x, double y, double radius, std::string_view css_class, std::string_view tooltip) {
  body_ += "<circle class=\"" + std::string(css_class) + "\" cx=\"" + coordinate(x) + "\" cy=\"" + coordinate(y) + "\" r=\"" +
           coordinate(radius) + "\"" + (tooltip.empty() ? "/>\n" : "><title>" + escape_markup(tooltip) + "</title></circle>\n");
}

void Canvas::path(std::string_view data, std::string_view css_class) {
  body_ += "<path class=\"" + std::string(css_class) + "\" d=\"" + std::string(data) + "\"/>\n";
}

void Canvas::text(double x, double y, Anchor anchor, std::string_view css_class, std::string_view text) {
  body_ += "<text x=\"" + coordinate(x) + "\" y=\"" + coordinate(y) + "\"";
  if (anchor != Anchor::kStart) body_ += std::string(" text-anchor=\"") + anchor_name(anchor) + "\"";
  if (!css_class.empty()) body_ += " class=\"" + std::string(css_class) + "\"";
  body_ += ">" + escape_markup(text) + "</text>\n";
}

void Canvas::vertical_text(double x, double y, std::string_view css_class, std::string_view text) {
  body_ += "<text transform=\"translate(" + coordinate(x) + " " + coordinate(y) + ") rotate(-90)\" class=\"" + std::string(css_class) +
           "\">" + escape_markup(text) + "</text>\n";
}

void Canvas::begin_group(std::string_view css_class) { body_ += "<g class=\"" + std::string(css_class) + "\">\n"; }
void Canvas::end_group() { body_ += "</g>\n"; }

std::string Canvas::finish(double height) const {
  const double padding = frame_.standalone ? kPadding : 0.0;
  const double w = frame_.width + 2.0 * padding, h = height + 2.0 * padding;
  std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" role=\"img\" viewBox=\"" + coordinate(-padding) + " " +
                    coordinate(-padding) + " " + coordinate(w) + " " + coordinate(h) + "\" width=\"" + coordinate(w) + "\" height=\"" +
                    coordinate(h) + "\" aria-label=\"" + escape_markup(frame_.title) + "\"";
  if (frame_.standalone) out += " font-family=\"" + std::string(kFonts) + "\"";
  out += ">\n";
  if (!frame_.description.empty()) out += "<desc>" + escape_markup(frame_.description) + "</desc>\n";
  if (frame_.standalone) {
    out += "<style>" + style_rules() + "</style>\n<rect class=\"paper\" x=\"" + coordinate(-padding) + "\" y=\"" + coordinate(-padding) +
           "\" width=\"" + coordinate(w) + "\" height=\"" + coordinate(h) + "\" rx=\"8\"/>\n";
  }
  return out + body_ + "</svg>\n";
}

double draw_legend(Canvas& canvas, double x, double y, double width, const std::vector<LegendEntry>& entries) {
  constexpr double kLine = 20.0, kSwatch = 18.0, kGap = 18.0;
  double at = 0.0, row = 0.0;
  for (const LegendEntry& entry : entries) {
    const std::string name = fit_text(entry.name, width - kSwatch - 8.0);
    const double swatch = entry.is_line ? kSwatch : 10.0, size = swatch + 6.0 + text_width(name);
    if (at > 0.0 && at + size > width) {
      at = 0.0;
      row += kLine;
    }
    canvas.begin_group(entry.css_class);
    if (entry.is_line) {
      canvas.line(x + at, y + row + 8.0, x + at + kSwatch, y + row + 8.0, "curve");
    } else {
      canvas.circle(x + at + 5.0, y + row + 8.0, 5.0, "mark");
    }
    canvas.end_group();
    canvas.text(x + at + swatch + 6.0, y + row + 12.0, Anchor::kStart, "strong", name);
    at += size + kGap;
  }
  return entries.empty() ? 0.0 : row + kLine + 6.0;
}

std::string series_class(int colour, size_t position) {
  const size_t index = colour >= 0 ? static_cast<size_t>(colour) : position;
  const auto n = static_cast<size_t>(kSeriesColours);
  return "s" + std::to_string(index % n) + (index >= n ? " dashed" : "");
}

}  // namespace quern::plot
