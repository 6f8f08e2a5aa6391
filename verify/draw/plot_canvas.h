#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "verify/draw/plot.h"

namespace quern::plot {

// What the plots share: elements with coordinates rounded to a tenth of a pixel, text measured without a font, and the style.

enum class Anchor { kStart, kMiddle, kEnd };

struct Box {
  double x = 0.0, y = 0.0, width = 0.0, height = 0.0;
  double overlap(const Box& other) const noexcept;  // area
};

constexpr double kTextSize = 12.0;   // ticks, labels, legends
constexpr double kTitleSize = 16.0;  // of standalone plots
constexpr int kSeriesColours = 6;
constexpr int kHeatSteps = 9;

struct Theme {
  const char *paper, *ink, *muted, *grid, *tint, *none;
  std::array<const char*, kSeriesColours> series;
  std::array<const char*, kHeatSteps> heat;  // small to large
};
extern const Theme kLightTheme, kDarkTheme;

// Width in pixels of text at kTextSize in a typical sans-serif, a little generous because the font is the reader's.
double text_width(std::string_view text);

// Text that fits into `width` pixels, shortened in the middle where needed.
std::string fit_text(std::string_view text, double width);

std::string coordinate(double value);

class Canvas {
 public:
  // For a standalone frame, content starts below the title: see top().
  explicit Canvas(const Frame& frame);

  double top() const noexcept { return top_; }
  double width() const noexcept { return frame_.width; }

  void rect(const Box& box, std::string_view css_class, std::string_view tooltip = {}, double radius = 0.0);
  void line(double x1, double y1, double x2, double y2, std::string_view css_class);
  void circle(double x, double y, double radius, std::string_view css_class, std::string_view tooltip = {});
  void path(std::string_view data, std::string_view css_class);
  void text(double x, double y, Anchor anchor, std::string_view css_class, std::string_view text);
  void vertical_text(double x, double y, std::string_view css_class, std::string_view text);  // reads upwards, ends at (x, y)
  void begin_group(std::string_view css_class);
  void end_group();

  std::string finish(double height) const;

 private:
  Frame frame_;
  double top_ = 0.0;
  std::string body_;
};

// Swatches with names, in lines that wrap at `width`; a line or a dot as the series is drawn. Returns the height used.
struct LegendEntry {
  std::string name;
  std::string css_class;
  bool is_line = false;
};
double draw_legend(Canvas& canvas, double x, double y, double width, const std::vector<LegendEntry>& entries);

// "s0" ... "s5", with a dash for the seventh and later.
std::string series_class(int colour, size_t position);

}  // namespace quern::plot
