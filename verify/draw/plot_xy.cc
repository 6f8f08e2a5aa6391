#include <algorithm>
#include <cmath>

#include "verify/draw/plot_canvas.h"
#include "verify/draw/plot_labels.h"
#include "verify/draw/plot_scale.h"

// Drawing goes from the back to the front: tints, grid and axes, rules, curves, marks, and labels last, because a label can avoid only what
// is already there. Each step tells the placer of labels what it has covered. A log axis has no place for 0, which is the best value that a
// loss can have; so on the y axis it gets a band of its own below a break instead of being left out.

namespace quern::plot {
namespace {

constexpr double kZeroBand = 34.0;  // height of the band below a log axis for values that are 0
constexpr double kMark = 5.0;       // radius

struct Layout {
  Scale x, y;
  Box area;           // where the scales reach; the zero band lies below it
  double zero = 0.0;  // y of values that are 0, when there is a band
  bool band = false;

  double bottom() const { return area.y + area.height + (band ? kZeroBand : 0.0); }
  bool shows(const Point& p) const { return x.holds(p.x) && (y.holds(p.y) || (band && p.y <= 0.0) || p.y == INFINITY); }
  double y_at(double value) const { return band && value <= 0.0 ? zero : value == INFINITY ? area.y : y.at(value); }
};

Extent extent_x(const XyPlot& plot) {
  Extent extent;
  for (const Series& series : plot.series) {
    for (const Point& p : series.points) extent.include(p.x, plot.x.log);
  }
  return extent;
}

Extent extent_y(const XyPlot& plot) {
  Extent extent;
  for (const Series& series : plot.series) {
    for (const Point& p : series.points) {
      extent.include(p.y, plot.y.log);
      if (!plot.y.log) extent.include(p.y - p.error, false);
      if (p.error > 0.0) extent.include(p.y + p.error, plot.y.log);
    }
  }
  for (const Rule& rule : plot.rules) extent.include(rule.y, plot.y.log);
  return extent;
}

std::vector<LegendEntry> legend_of(const XyPlot& plot) {
  std::vector<LegendEntry> entries;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const Series& s = plot.series[i];
    if (!s.name.empty()) entries.push_back({s.name, s.muted ? "muted" : series_class(s.colour, i), s.draw != Draw::kMarks});
  }
  if (entries.size() < 2) entries.clear();
  return entries;
}

void draw_axes(Canvas& canvas, const XyPlot& plot, const Layout& l) {
  for (const Tick& tick : l.y.ticks()) {
    const double y = l.y.at(tick.value);
    canvas.line(l.area.x, y, l.area.x + l.area.width, y, "grid");
    if (!tick.text.empty()) canvas.text(l.area.x - 8.0, y + 4.0, Anchor::kEnd, "", tick.text);
  }
  if (l.band) {
    canvas.line(l.area.x, l.zero, l.area.x + l.area.width, l.zero, "grid");
    canvas.text(l.area.x - 8.0, l.zero + 4.0, Anchor::kEnd, "", "0");
    const double y = l.area.y + l.area.height + kZeroBand / 2.0;  // the axis is broken here
    canvas.line(l.area.x - 5.0, y - 1.0, l.area.x + 5.0, y - 5.0, "axis");
    canvas.line(l.area.x - 5.0, y + 5.0, l.area.x + 5.0, y + 1.0, "axis");
  }
  canvas.line(l.area.x, l.bottom(), l.area.x + l.area.width, l.bottom(), "axis");
  double free_from = -1e9;
  for (const Tick& tick : l.x.ticks()) {
    const double x = l.x.at(tick.value), half = text_width(tick.text) / 2.0;
    canvas.line(x, l.bottom(), x, l.bottom() + (tick.text.empty() ? 3.0 : 5.0), "axis");
    if (tick.text.empty() || x - half < free_from) continue;
    canvas.text(std::min(x, canvas.width() - half), l.bottom() + 19.0, Anchor::kMiddle, "", tick.text);
    free_from = x + half + 6.0;
  }
  canvas.text(l.area.x + l.area.width, l.bottom() + 38.0, Anchor::kEnd, "strong", plot.x.label);
}

void draw_rules(Canvas& canvas, const XyPlot& plot, const Layout& l) {
  for (const Rule& rule : plot.rules) {
    if (!l.y.holds(rule.y)) continue;
    const double y = l.y.at(rule.y);
    if (rule.tint_below) canvas.rect({l.area.x, y, l.area.width, l.bottom() - y}, "tint");
  }
}

void draw_rule_lines(Canvas& canvas, const XyPlot& plot, const Layout& l, LabelPlacer& labels) {
  for (const Rule& rule : plot.rules) {
    if (!l.y.holds(rule.y)) continue;
    const double y = l.y.at(rule.y);
    canvas.line(l.area.x, y, l.area.x + l.area.width, y, "rule");
    labels.avoid_line(l.area.x, y, l.area.x + l.area.width, y);
    if (rule.label.empty()) continue;
    const std::string text = fit_text(rule.label, l.area.width - 8.0);
    const double baseline = y + 15.0 <= l.bottom() ? y + 15.0 : y - 5.0;
    canvas.text(l.area.x + l.area.width - 4.0, baseline, Anchor::kEnd, "", text);
    labels.avoid({l.area.x + l.area.width - 4.0 - text_width(text), baseline - 11.0, text_width(text), 15.0});
  }
}

void draw_curve(Canvas& canvas, const Series& series, const Layout& l, LabelPlacer& labels) {
  std::string data;
  const Point* last = nullptr;
  for (const Point& p : series.points) {
    if (!l.shows(p)) {
      last = nullptr;
      continue;
    }
    const double x = l.x.at(p.x), y = l.y_at(p.y);
    if (last == nullptr) {
      data += "M" + coordinate(x) + " " + coordinate(y);
    } else {
      if (series.draw == Draw::kSteps)
        data += "H" + coordinate(x) + "V" + coordinate(y);
      else
        data += "L" + coordinate(x) + " " + coordinate(y);
      labels.avoid_line(l.x.at(last->x), l.y_at(last->y), x, y);
    }
    last = &p;
  }
  if (!data.empty()) canvas.path(data, "curve");
}

void draw_marks(Canvas& canvas, const Series& series, const Layout& l, LabelPlacer& labels) {
  for (const Point& p : series.points) {
    if (!l.shows(p)) continue;
    const double x = l.x.at(p.x), y = l.y_at(p.y);
    if (p.error > 0.0 && std::isfinite(p.y) && p.y > 0.0) {
      const double high = l.y.at(p.y + p.error), low = l.y.at(std::max(p.y - p.error, l.y.low()));
      if (low - high > 2.0 * kMark) {
        canvas.path("M" + coordinate(x) + " " + coordinate(high) + "V" + coordinate(low) + "M" + coordinate(x - 4.0) + " " +
                        coordinate(high) + "h8M" + coordinate(x - 4.0) + " " + coordinate(low) + "h8",
                    "bar");
        labels.avoid_line(x, high, x, low);
      }
    }
    canvas.circle(x, y, kMark, "mark", p.tooltip);
    labels.avoid({x - kMark, y - kMark, 2.0 * kMark, 2.0 * kMark});
  }
}

void draw_labels(Canvas& canvas, const Series& series, const Layout& l, LabelPlacer& labels) {
  for (const Point& p : series.points) {
    if (p.label.empty() || !l.shows(p)) continue;
    const double x = l.x.at(p.x), y = l.y_at(p.y);
    const std::string text = fit_text(p.label, l.area.width / 2.0);
    const auto place = labels.place(x, y, text_width(text));
    if (!place) continue;  // the tooltip still says it
    if (place->far) canvas.line(x, y, place->x, place->y - 4.0, "leader");
    canvas.text(place->x, place->y, place->anchor, "strong halo", text);
  }
}

Layout lay_out(const XyPlot& plot, double top, double height) {
  const Extent x = extent_x(plot), y = extent_y(plot);
  const double plain_width = plot.frame.width;
  Layout l{Scale(plot.x, x, static_cast<int>(plain_width / 70.0)), Scale(plot.y, y, static_cast<int>(height / 36.0)), {}, 0.0, y.has_zero};
  const double left = std::max(24.0, l.y.widest_tick() + 14.0);
  l.area = {left, top, plain_width - left - 12.0, height - (l.band ? kZeroBand : 0.0)};
  l.zero = l.area.y + l.area.height + kZeroBand - 8.0;
  l.x.set_pixels(l.area.x, l.area.x + l.area.width);
  l.y.set_pixels(l.area.y + l.area.height, l.area.y);
  return l;
}

}  // namespace

std::string draw(const XyPlot& plot) {
  Canvas canvas(plot.frame);
  canvas.text(0.0, canvas.top() + 12.0, Anchor::kStart, "strong", plot.y.label);
  double top = canvas.top() + 24.0;
  top += draw_legend(canvas, 0.0, top, plot.frame.width, legend_of(plot)) + 6.0;
  const double height = plot.frame.height > 0.0 ? plot.frame.height : std::clamp(plot.frame.width * 0.5, 220.0, 360.0);
  const Layout l = lay_out(plot, top, height);
  LabelPlacer labels({l.area.x, l.area.y - 14.0, l.area.width + 12.0, l.bottom() - l.area.y + 14.0});
  draw_rules(canvas, plot, l);
  draw_axes(canvas, plot, l);
  draw_rule_lines(canvas, plot, l, labels);
  const auto each_series = [&](auto&& body) {
    for (size_t i = 0; i < plot.series.size(); ++i) {
      canvas.begin_group(plot.series[i].muted ? "muted" : series_class(plot.series[i].colour, i));
      body(plot.series[i]);
      canvas.end_group();
    }
  };
  each_series([&](const Series& s) {
    if (s.draw != Draw::kMarks) draw_curve(canvas, s, l, labels);
  });
  each_series([&](const Series& s) {
    if (s.draw == Draw::kMarks || s.draw == Draw::kLineAndMarks) draw_marks(canvas, s, l, labels);
  });
  each_series([&](const Series& s) { draw_labels(canvas, s, l, labels); });
  return canvas.finish(l.bottom() + 44.0);
}

}  // namespace quern::plot
