#include <algorithm>
#include <cmath>
#include <map>

#include "verify/draw/markup.h"
#include "verify/draw/plot_canvas.h"
#include "verify/draw/plot_scale.h"

// Steps are of equal ratio, because errors that matter differ by factors. A map that has too many columns for its width is drawn with rows
// and columns exchanged, if that makes the cells wider; the exchanged map has more rows than columns, so it is never exchanged back.
// Without tooltips all cells of one colour are one path, which is what makes a large map small.

namespace quern::plot {
namespace {

constexpr double kSmallestCell = 7.0, kLargestCell = 60.0, kRowHeight = 18.0;
constexpr double kNumberCell = 36.0;  // wide enough for its value
constexpr int kFirstDarkStep = 5;     // of the colours on which paper is the better ink

// Nine steps of equal ratio.
class Steps {
 public:
  explicit Steps(const HeatMap& map) {
    Extent extent;
    for (const double value : map.values) extent.include(value, true);
    smallest_ = extent.low;
    low_ = map.low.value_or(extent.low <= extent.high ? round_down_125(extent.low) : 0.01);
    high_ = map.high.value_or(extent.low <= extent.high ? round_up_125(extent.high) : 1.0);
    if (!(low_ > 0.0 && high_ > low_)) high_ = 2.0 * (low_ = low_ > 0.0 ? low_ : 1.0);
  }
  int of(double value) const {
    const double share = std::log(std::clamp(value, low_, high_) / low_) / std::log(high_ / low_);
    return std::min(kHeatSteps - 1, static_cast<int>(share * kHeatSteps));
  }
  bool cuts() const { return smallest_ < low_ * (1.0 - 1e-9); }  // values below the scale
  double edge(int i) const { return low_ * std::pow(high_ / low_, static_cast<double>(i) / kHeatSteps); }

 private:
  double low_, high_, smallest_;
};

std::string value_text(const HeatMap& map, double value, int digits) {
  return map.percent ? readable_number(100.0 * value, digits) + " %" : readable_number(value, digits);
}

HeatMap exchanged(const HeatMap& map) {
  HeatMap out = map;
  std::swap(out.rows, out.columns);
  std::swap(out.row_label, out.column_label);
  const size_t rows = map.rows.size(), columns = map.columns.size();
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) out.values[c * rows + r] = map.values[r * columns + c];
  }
  return out;
}

double widest(const std::vector<std::string>& names) {
  double width = 0.0;
  for (const std::string& name : names) width = std::max(width, text_width(name));
  return width;
}

double left_of(const HeatMap& map) { return std::max(std::min(widest(map.rows), map.frame.width * 0.4), text_width(map.row_label)) + 10.0; }

// Column names stand above the cells: level where they fit, else every second, fifth ... of short ones, else upright.
double draw_column_names(Canvas& canvas, const HeatMap& map, double left, double top, double cell) {
  const double width = widest(map.columns);
  if (width > 40.0) {
    const double height = std::min(width, 130.0);
    for (size_t c = 0; c < map.columns.size(); ++c) {
      const double x = left + (static_cast<double>(c) + 0.5) * cell + 4.0;
      canvas.vertical_text(x, top + height, "", fit_text(map.columns[c], height));
    }
    return height + 6.0;
  }
  size_t every = 1;
  for (const size_t stride : {1, 2, 5, 10, 20, 50, 100}) {
    every = stride;
    if (width + 6.0 <= cell * static_cast<double>(stride)) break;
  }
  for (size_t c = 0; c < map.columns.size(); c += every) {
    canvas.text(left + (static_cast<double>(c) + 0.5) * cell, top + 12.0, Anchor::kMiddle, "", map.columns[c]);
  }
  return 18.0;
}

void draw_cells(Canvas& canvas, const HeatMap& map, const Steps& steps, double left, double top, double cell) {
  const double gap = cell > 10.0 ? 1.0 : 0.5;
  std::map<std::string, std::string> paths;  // by class
  for (size_t r = 0; r < map.rows.size(); ++r) {
    const double y = top + static_cast<double>(r) * kRowHeight;
    canvas.text(left - 8.0, y + kRowHeight / 2.0 + 4.0, Anchor::kEnd, "strong", fit_text(map.rows[r], left - 8.0));
    for (size_t c = 0; c < map.columns.size(); ++c) {
      const double value = map.values[r * map.columns.size() + c];
      if (std::isnan(value)) continue;
      const bool zero = value <= 0.0;
      const std::string css_class = zero ? "none" : "h" + std::to_string(steps.of(value));
      const Box box{left + static_cast<double>(c) * cell, y, cell - gap, kRowHeight - gap};
      if (map.tooltips) {
        canvas.rect(box, css_class, map.rows[r] + ", " + map.columns[c] + ": " + (zero ? map.zero_name : value_text(map, value, 3)));
      } else {
        paths[css_class] += "M" + coordinate(box.x) + " " + coordinate(box.y) + "h" + coordinate(box.width) + "v" + coordinate(box.height) +
                            "h" + coordinate(-box.width) + "z";
      }
    }
  }
  for (const auto& [css_class, data] : paths) canvas.path(data, css_class);
}

// Values in the cells where there is room for all of them, in the unit of the key.
void draw_numbers(Canvas& canvas, const HeatMap& map, const Steps& steps, double left, double top, double cell) {
  for (size_t i = 0; i < map.values.size(); ++i) {
    const double value = map.values[i];
    if (!(value > 0.0)) continue;
    const double x = left + (static_cast<double>(i % map.columns.size()) + 0.5) * cell - 0.5;
    const double y = top + static_cast<double>(i / map.columns.size()) * kRowHeight + kRowHeight / 2.0 + 4.0;
    const std::string text = readable_number(map.percent ? 100.0 * value : value, 2);
    if (text_width(text) < cell) canvas.text(x, y, Anchor::kMiddle, steps.of(value) < kFirstDarkStep ? "strong" : "paper", text);
  }
}

// Returns the height used.
double draw_key(Canvas& canvas, const HeatMap& map, const Steps& steps, double top) {
  const double swatch = std::min(30.0, (map.frame.width - 110.0) / kHeatSteps);
  canvas.text(0.0, top + 12.0, Anchor::kStart, "strong", map.value_label);
  const double y = top + 22.0;
  canvas.rect({0.5, y + 0.5, swatch - 2.0, 12.0}, "none");
  canvas.text(0.0, y + 28.0, Anchor::kStart, "", map.zero_name);
  const double left = std::max(swatch, text_width(map.zero_name)) + 14.0 + text_width(value_text(map, steps.edge(0), 2)) / 2.0;
  for (int i = 0; i < kHeatSteps; ++i) canvas.rect({left + i * swatch, y, swatch, 13.0}, "h" + std::to_string(i));
  for (int i = 0; i <= kHeatSteps; i += 3) {
    const bool open = i == 0 && steps.cuts();
    canvas.text(left + i * swatch, y + 28.0, Anchor::kMiddle, "", (open ? "≤ " : "") + value_text(map, steps.edge(i), 2));
  }
  return 56.0;
}

}  // namespace

std::string draw(const HeatMap& map) {
  const auto cell_of = [](const HeatMap& m) {
    return (m.frame.width - left_of(m)) / static_cast<double>(std::max<size_t>(1, m.columns.size()));
  };
  if (cell_of(map) < kSmallestCell && map.rows.size() < map.columns.size()) {
    HeatMap other = exchanged(map);
    if (cell_of(other) > cell_of(map)) return draw(other);
  }
  Canvas canvas(map.frame);
  const Steps steps(map);
  const double left = left_of(map), cell = std::min(kLargestCell, cell_of(map));
  double top = canvas.top();
  canvas.text(left, top + 12.0, Anchor::kStart, "strong", map.column_label);
  canvas.text(left - 8.0, top + 12.0, Anchor::kEnd, "strong", map.row_label);
  top += 20.0;
  top += draw_column_names(canvas, map, left, top, cell);
  draw_cells(canvas, map, steps, left, top, cell);
  if (cell >= kNumberCell) draw_numbers(canvas, map, steps, left, top, cell);
  top += static_cast<double>(map.rows.size()) * kRowHeight + 12.0;
  top += draw_key(canvas, map, steps, top);
  return canvas.finish(top);
}

}  // namespace quern::plot
