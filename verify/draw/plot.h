#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace quern::plot {

// Plots as SVG text. Same input, same bytes. Every text is escaped; every number is accepted, infinities and NaN included. Colours come
// from classes: the same drawing is right on light paper, on a dark screen and in print. The six series colours were chosen by a
// search over OKLCH: all pairs differ by at least 15 in OKLab x 100 for normal sight and by 9.8 under simulated protanopia and
// deuteranopia (Machado et al. 2009), 3.3 : 1 against the paper or more, on both papers.

struct Frame {
  std::string title = {};        // drawn above a standalone plot; the accessible name of an embedded one
  std::string description = {};  // for screen readers: what one sees
  double width = 720.0;          // pixels at which text has its natural size
  double height = 0.0;           // 0: a good one for the width; heat maps and rows compute their own
  bool standalone = false;       // a file of its own, with its style and paper; otherwise the page has style_rules()
};

// CSS of the classes that embedded plots use, for light, dark and print.
std::string style_rules();

struct Axis {
  std::string label = {};  // with the unit
  bool log = false;        // values <= 0 then stand in a band of their own beside the axis, marked 0
  std::optional<double> low = {}, high = {};
  bool percent = false;   // values are shares; shown times 100 with a percent sign
  bool integers = false;  // counts and layers: no ticks between
};

struct Point {
  double x = 0.0;
  double y = 0.0;
  double error = 0.0;      // half the length of the vertical bar
  std::string label = {};  // beside the point, where there is room
  std::string tooltip = {};
};

enum class Draw { kMarks, kLine, kLineAndMarks, kSteps };

struct Series {
  std::string name = {};  // in the legend when there is more than one named series
  std::vector<Point> points = {};
  Draw draw = Draw::kMarks;
  int colour = -1;  // 0 to 5; -1: by position
  bool muted = false;
};

// A horizontal line, with everything below it tinted if asked.
struct Rule {
  double y = 0.0;
  std::string label = {};
  bool tint_below = false;
};

// Points and lines; y errors; labels that avoid each other.
struct XyPlot {
  Frame frame = {};
  Axis x = {}, y = {};
  std::vector<Series> series = {};
  std::vector<Rule> rules = {};
};
std::string draw(const XyPlot& plot);

// Coloured cells on a log scale of nine steps, with their values where all have room. Drawn with rows and columns exchanged where the
// columns would be too narrow.
struct HeatMap {
  Frame frame = {};
  std::string row_label = {}, column_label = {}, value_label = {};
  std::vector<std::string> rows = {}, columns = {};
  std::vector<double> values = {};  // rows x columns; NaN: there is no such cell; 0: a cell of its own kind
  std::string zero_name = "0";
  bool percent = false;
  bool tooltips = true;                       // without them, a fourth of the bytes
  std::optional<double> low = {}, high = {};  // ends of the colour scale; default: of the values, rounded to 1, 2, 5
};
std::string draw(const HeatMap& map);

// Histograms one below the other over one log axis, each scaled to its own tallest bin.
struct Distribution {
  std::string name = {};
  std::vector<double> shares = {};  // of the bins
  double below = 0.0;               // share left of the first bin, drawn as a bar marked "0"
  double above = 0.0;
  std::vector<std::pair<double, std::string>> marks = {};  // short ticks with a name: "mean"
  int colour = 0;
};
struct DistributionPlot {
  Frame frame = {};
  Axis x = {};
  std::vector<double> edges = {};  // shares.size() + 1, ascending, positive
  std::vector<Distribution> rows = {};
};
std::string draw(const DistributionPlot& plot);

// Horizontal bars, grouped when there is more than one series; values at their ends.
struct BarSeries {
  std::string name = {};
  std::vector<double> values = {};  // one per name of the plot; NaN: none
  int colour = -1;
};
struct BarPlot {
  Frame frame = {};
  Axis x = {};  // linear
  std::vector<std::string> names = {};
  std::vector<BarSeries> series = {};
};
std::string draw(const BarPlot& plot);

}  // namespace quern::plot
