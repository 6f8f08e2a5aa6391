#include <algorithm>
#include <cmath>

#include "verify/draw/markup.h"
#include "verify/draw/plot_canvas.h"
#include "verify/draw/plot_scale.h"

// Plots made of named rows: distributions and bars. On narrow paper the name stands above its row instead of left of it. Each distribution
// is scaled to its own tallest bin, because shapes are compared and a narrow peak would otherwise flatten all the others. Values that a log
// axis has no place for, 0 among them, are one bar left of it.

namespace quern::plot {
namespace {

constexpr double kNarrow = 480.0;

double widest_name(const std::vector<std::string>& names) {
  double width = 0.0;
  for (const std::string& name : names) width = std::max(width, text_width(name));
  return width;
}

void draw_x_axis(Canvas& canvas, const Scale& scale, double left, double right, double top, double bottom, const std::string& label) {
  double free_from = -1e9;
  for (const Tick& tick : scale.ticks()) {
    const double x = scale.at(tick.value), half = text_width(tick.text) / 2.0;
    if (tick.text.empty()) continue;
    canvas.line(x, top, x, bottom, "grid");
    if (x - half < free_from) continue;
    canvas.text(std::min(x, right - half), bottom + 17.0, Anchor::kMiddle, "", tick.text);
    free_from = x + half + 6.0;
  }
  canvas.line(left, bottom, right, bottom, "axis");
  canvas.text(right, bottom + 37.0, Anchor::kEnd, "strong", label);
}

struct RowLayout {
  double name_width, left, right, row, body;  // row: from one to the next; body: drawing height, at its bottom
  bool above;                                 // names above the rows
};

RowLayout row_layout(double width, const std::vector<std::string>& names, double body) {
  RowLayout l{};
  l.above = width < kNarrow;
  l.name_width = l.above ? width : std::min(widest_name(names), width * 0.34);
  l.left = l.above ? 0.0 : l.name_width + 14.0;
  l.right = width;
  l.body = body;
  l.row = body + (l.above ? 24.0 : 10.0);
  return l;
}

void draw_name(Canvas& canvas, const RowLayout& l, double bottom, const std::string& name) {
  const std::string text = fit_text(name, l.name_width);
  if (l.above) {
    canvas.text(0.0, bottom - l.body - 5.0, Anchor::kStart, "strong", text);
  } else {
    canvas.text(l.left - 14.0, bottom - l.body / 2.0 + 4.0, Anchor::kEnd, "strong", text);
  }
}

constexpr double kZeroWidth = 46.0;

void draw_distribution(Canvas& canvas, const DistributionPlot& plot, const Distribution& row, const Scale& scale, double zero_x,
                       double bottom, double height) {
  double tallest = std::max(row.below, row.above);
  for (const double share : row.shares) tallest = std::max(tallest, share);
  if (!(tallest > 0.0) || !std::isfinite(tallest)) return;
  const auto y = [&](double share) { return bottom - std::max(0.0, share) / tallest * height; };
  canvas.begin_group(series_class(row.colour, 0));
  std::string data;
  for (size_t i = 0; i < row.shares.size() && i + 1 < plot.edges.size(); ++i) {
    if (!(row.shares[i] > 0.0) || !scale.holds(plot.edges[i + 1]) || !scale.holds(plot.edges[i])) continue;
    const double left = scale.at(plot.edges[i]), right = scale.at(plot.edges[i + 1]);
    data += "M" + coordinate(left) + " " + coordinate(bottom) + "V" + coordinate(y(row.shares[i])) + "H" + coordinate(right) + "V" +
            coordinate(bottom) + "z";
  }
  if (!data.empty()) canvas.path(data, "area");
  if (row.below > 0.0) {
    const Box box{zero_x - 7.0, y(row.below), 14.0, bottom - y(row.below)};
    canvas.rect(box, "area", "below the axis: " + readable_number(100.0 * row.below, 3) + " %");
  }
  canvas.end_group();
  for (const auto& [value, name] : row.marks) {
    if (!scale.holds(value)) continue;
    const double x = scale.at(value);
    canvas.line(x, bottom, x, bottom - height, "mean");
    canvas.text(x + 4.0, bottom - height + 8.0, Anchor::kStart, "halo", name);
  }
}

}  // namespace

std::string draw(const DistributionPlot& plot) {
  Canvas canvas(plot.frame);
  std::vector<std::string> names;
  Extent extent;
  bool zeros = false;
  for (const Distribution& row : plot.rows) {
    names.push_back(row.name);
    zeros = zeros || row.below > 0.0;
    for (size_t i = 0; i < row.shares.size() && i + 1 < plot.edges.size(); ++i) {
      if (!(row.shares[i] > 0.0)) continue;
      extent.include(plot.edges[i], true);
      extent.include(plot.edges[i + 1], true);
    }
  }
  RowLayout l = row_layout(plot.frame.width, names, plot.frame.width < kNarrow ? 44.0 : 46.0);
  const double zero_x = l.left + 10.0;
  if (zeros) l.left += kZeroWidth;
  Axis axis = plot.x;
  axis.log = true;
  Scale scale(axis, extent, static_cast<int>((l.right - l.left) / 60.0));
  scale.set_pixels(l.left, l.right - 4.0);
  const double top = canvas.top() + 4.0, bottom = top + l.row * static_cast<double>(plot.rows.size());
  draw_x_axis(canvas, scale, l.left, l.right, top, bottom, plot.x.label);
  if (zeros) {
    canvas.line(zero_x - 10.0, bottom, zero_x + 10.0, bottom, "axis");
    canvas.text(zero_x, bottom + 17.0, Anchor::kMiddle, "", "0");
    if (!l.above) l.left -= kZeroWidth;  // names stand left of the zeros
  }
  for (size_t i = 0; i < plot.rows.size(); ++i) {
    const double base = top + l.row * static_cast<double>(i + 1);
    draw_name(canvas, l, base, plot.rows[i].name);
    if (i + 1 < plot.rows.size()) canvas.line(zeros ? zero_x - 10.0 : l.left, base, l.right, base, "grid");
    draw_distribution(canvas, plot, plot.rows[i], scale, zero_x, base, l.body);
  }
  return canvas.finish(bottom + 42.0);
}

std::string draw(const BarPlot& plot) {
  Canvas canvas(plot.frame);
  std::vector<LegendEntry> legend;
  Extent extent;
  extent.include(0.0, false);
  for (size_t i = 0; i < plot.series.size(); ++i) {
    legend.push_back({plot.series[i].name, series_class(plot.series[i].colour, i), false});
    for (const double value : plot.series[i].values) extent.include(value, false);
  }
  if (legend.size() < 2) legend.clear();
  constexpr double kBar = 14.0, kValue = 62.0;
  const RowLayout l = row_layout(plot.frame.width, plot.names, kBar * static_cast<double>(std::max<size_t>(1, plot.series.size())));
  Scale scale(plot.x, extent, static_cast<int>((l.right - kValue - l.left) / 60.0));
  scale.set_pixels(l.left, l.right - kValue);
  const double top = canvas.top() + draw_legend(canvas, 0.0, canvas.top(), plot.frame.width, legend);
  const double bottom = top + l.row * static_cast<double>(plot.names.size());
  draw_x_axis(canvas, scale, l.left, l.right - kValue, top, bottom, plot.x.label);
  for (size_t i = 0; i < plot.names.size(); ++i) {
    const double base = top + l.row * static_cast<double>(i + 1) - (l.above ? 2.0 : 5.0);
    draw_name(canvas, l, base, plot.names[i]);
    for (size_t s = 0; s < plot.series.size(); ++s) {
      const double value = i < plot.series[s].values.size() ? plot.series[s].values[i] : NAN;
      if (std::isnan(value)) continue;
      const double y = base - l.body + kBar * static_cast<double>(s), from = scale.at(0.0), to = scale.at(value);
      canvas.begin_group(series_class(plot.series[s].colour, s));
      canvas.rect({std::min(from, to), y + 1.0, std::fabs(to - from), kBar - 2.0}, "area", {}, 2.0);
      canvas.end_group();
      const std::string text = plot.x.percent ? readable_number(100.0 * value, 3) + " %" : readable_number(value, 3);
      canvas.text(std::max(from, to) + 5.0, y + kBar / 2.0 + 4.0, Anchor::kStart, "", text);
    }
  }
  return canvas.finish(bottom + 42.0);
}

}  // namespace quern::plot
