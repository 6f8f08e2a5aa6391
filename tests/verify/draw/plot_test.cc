#include "verify/draw/plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/verify/well_formed.h"
#include "verify/draw/markup.h"
#include "verify/draw/plot_canvas.h"
#include "verify/draw/plot_labels.h"
#include "verify/draw/plot_scale.h"

namespace quern::plot {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNotANumber = std::numeric_limits<double>::quiet_NaN();
const std::string kHostile = "</text><script>alert('x')</script>\"& \x01\xff\xe2\x80\xae\xed\xa0\x80";

std::vector<std::string> numbers_of(const Scale& scale) {
  std::vector<std::string> out;
  for (const Tick& tick : scale.ticks()) {
    if (!tick.text.empty()) out.push_back(tick.text);
  }
  return out;
}

std::vector<std::string> numbers_between(double low, double high, bool log, int max_ticks = 6) {
  Extent extent;
  extent.include(low, log);
  extent.include(high, log);
  return numbers_of(Scale({.label = "x", .log = log}, extent, max_ticks));
}

size_t count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

XyPlot some_plot(bool standalone) {
  XyPlot plot{.frame = {.title = "Loss by size", .description = "points", .standalone = standalone}};
  plot.x = {.label = "size, GB", .log = true};
  plot.y = {.label = "mean KL, nats", .log = true};
  plot.series = {{.name = "a", .points = {{10, 0.1, 0.01, "Q2_K", "tip"}, {20, 0.01, 0.001, "Q4_K_M", ""}, {30, 0.0, 0.0, "lossless", ""}}},
                 {.name = "b", .points = {{15, 0.05, 0.0, "", ""}, {25, 0.02, 0.0, "", ""}}, .draw = Draw::kLine}};
  plot.rules = {{.y = 0.001, .label = "noise floor", .tint_below = true}};
  return plot;
}

TEST(Markup, EscapesEverythingThatCouldBeMarkup) {
  EXPECT_EQ(escape_markup("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
  EXPECT_EQ(escape_markup("Größe 7 µ 漢 😀"), "Größe 7 µ 漢 😀");
  EXPECT_EQ(escape_markup(std::string_view("a\0b\x1b", 4)), "a\uFFFDb\uFFFD");
  EXPECT_EQ(escape_markup("\xc0\xaf"), "\uFFFD\uFFFD") << "overlong";
  EXPECT_EQ(escape_markup("x\xf0\x9f"), "x\uFFFD\uFFFD") << "cut";
  EXPECT_EQ(escape_markup("\xe2\x80\xae"
                          "fugg"),
            "\uFFFDfugg")
      << "right-to-left override";
}

TEST(Markup, NumbersAreWrittenForPeople) {
  EXPECT_EQ(readable_number(0.0, 3), "0");
  EXPECT_EQ(readable_number(-0.25, 3), "−0.25");
  EXPECT_EQ(readable_number(9.996, 3), "10");
  EXPECT_EQ(readable_number(123456.0, 3), "123456");
  EXPECT_EQ(readable_number(1.25e-7, 2), "1.2·10⁻⁷");
  EXPECT_EQ(readable_number(1e9, 3), "10⁹");
  EXPECT_EQ(readable_number(kInfinity, 3), "∞");
  EXPECT_EQ(shorten("abcdefghij", 5), "ab…ij");
}

TEST(PlotScale, TicksAreRoundNumbers) {
  EXPECT_EQ(numbers_between(0.0, 1.0, false), (std::vector<std::string>{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(numbers_between(7.0, 18.5, true), (std::vector<std::string>{"6", "8", "10", "12", "14", "16", "18", "20"}));
  EXPECT_EQ(numbers_between(2e-6, 0.3, true, 7), (std::vector<std::string>{"10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "0.01", "0.1", "1"}));
  EXPECT_EQ(numbers_between(1.0, 90.0, true, 10), (std::vector<std::string>{"1", "2", "5", "10", "20", "50", "100"}));
}

TEST(PlotScale, SurvivesExtremeData) {
  for (const bool log : {false, true}) {
    for (const auto& [low, high] : std::vector<std::pair<double, double>>{{kInfinity, kInfinity},
                                                                          {kNotANumber, 1.0},
                                                                          {0.0, 0.0},
                                                                          {-1.0, 0.0},
                                                                          {5.0, 5.0},
                                                                          {1e17, 1e17 + 16.0},
                                                                          {5e-324, 1.7e308},
                                                                          {-1.7e308, 1.7e308},
                                                                          {1e-300, 1e-300}}) {
      Extent extent;
      extent.include(low, log);
      extent.include(high, log);
      Scale scale({.label = "x", .log = log}, extent, 6);
      scale.set_pixels(0.0, 100.0);
      EXPECT_LT(scale.low(), scale.high()) << low << " " << high;
      EXPECT_LE(scale.ticks().size(), 20u);
      for (const double value : {low, high}) {
        if (scale.holds(value)) {
          EXPECT_GE(scale.at(value), -0.01);
          EXPECT_LE(scale.at(value), 100.01);
        }
      }
    }
  }
}

TEST(Plot, IsWellFormedAndTheSameEveryTime) {
  for (const bool standalone : {false, true}) {
    const std::string svg = draw(some_plot(standalone));
    EXPECT_EQ(WellFormed::problem(svg), std::nullopt);
    EXPECT_EQ(svg, draw(some_plot(standalone)));
    EXPECT_EQ(count(svg, "<style>"), standalone ? 1u : 0u);
    EXPECT_NE(svg.find(">lossless<"), std::string::npos) << "a KL of 0 has its place on the log axis";
    EXPECT_NE(svg.find(">noise floor<"), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
  }
}

TEST(Plot, EscapesHostileNames) {
  XyPlot xy = some_plot(true);
  xy.frame.title = xy.frame.description = xy.x.label = xy.y.label = xy.series[0].name = xy.rules[0].label = kHostile;
  xy.series[0].points[0].label = xy.series[0].points[0].tooltip = kHostile;
  HeatMap map{.frame = {.title = kHostile},
              .row_label = kHostile,
              .column_label = kHostile,
              .value_label = kHostile,
              .rows = {kHostile},
              .columns = {kHostile},
              .values = {0.5},
              .zero_name = kHostile};
  DistributionPlot rows{
      .frame = {.title = kHostile}, .edges = {1e-3, 1e-2}, .rows = {{.name = kHostile, .shares = {1.0}, .marks = {{5e-3, kHostile}}}}};
  BarPlot bars{
      .frame = {.title = kHostile}, .x = {.label = kHostile}, .names = {kHostile}, .series = {{.name = kHostile, .values = {1.0}}}};
  for (const std::string& svg : {draw(xy), draw(map), draw(rows), draw(bars)}) {
    EXPECT_EQ(WellFormed::problem(svg), std::nullopt);
    EXPECT_EQ(svg.find("<script"), std::string::npos);
  }
}

TEST(Plot, DrawsNothingAndEverything) {
  const std::vector<double> values = {0.0, -1.0, kInfinity, -kInfinity, kNotANumber, 1e308, 5e-324};
  for (const double width : {320.0, 720.0}) {
    XyPlot xy{.frame = {.title = "t", .width = width}, .y = {.log = true}};
    HeatMap map{.frame = {.title = "t", .width = width}};
    DistributionPlot rows{.frame = {.title = "t", .width = width}};
    BarPlot bars{.frame = {.title = "t", .width = width}};
    for (const std::string& svg : {draw(xy), draw(map), draw(rows), draw(bars)}) EXPECT_EQ(WellFormed::problem(svg), std::nullopt);
    for (const double v : values) {
      xy.series.push_back({.name = "s", .points = {{v, 1.0, v}, {1.0, v, 1.0, "label"}}, .draw = Draw::kLineAndMarks});
      map.columns.push_back("c");
      map.values.push_back(v);
      rows.edges = {1e-8, 1.0, 100.0};
      rows.rows.push_back({.name = "r", .shares = {v, 1.0}, .below = v, .above = v, .marks = {{v, "m"}}});
      bars.names.push_back("b");
    }
    map.rows = {"r"};
    bars.series = {{.name = "s", .values = values}};
    for (const std::string& svg : {draw(xy), draw(map), draw(rows), draw(bars)}) {
      EXPECT_EQ(WellFormed::problem(svg), std::nullopt);
      EXPECT_EQ(svg.find("=\"nan"), std::string::npos);
      EXPECT_EQ(svg.find("=\"inf"), std::string::npos);
    }
  }
}

TEST(Plot, LabelsDoNotCoverEachOther) {
  LabelPlacer placer({0, 0, 300, 200});
  std::vector<Box> placed;
  for (int i = 0; i < 8; ++i) {
    const double x = 140.0 + 3.0 * i, y = 100.0;
    placer.avoid({x - 5, y - 5, 10, 10});
    const auto place = placer.place(x, y, 50.0);
    if (!place) continue;
    const double left = place->anchor == Anchor::kStart ? place->x : place->anchor == Anchor::kEnd ? place->x - 50.0 : place->x - 25.0;
    const Box box{left, place->y - 10.0, 50.0, 14.0};
    for (const Box& other : placed) EXPECT_LT(box.overlap(other), 1.5);
    placed.push_back(box);
  }
  EXPECT_GE(placed.size(), 5u);
}

TEST(Plot, HeatMapsHaveNumbersWhereAllHaveRoom) {
  HeatMap map{.frame = {.title = "t"}, .rows = {"a"}, .columns = {"0", "1"}, .values = {0.4, 0.0}, .percent = true};
  EXPECT_NE(draw(map).find(">40</text>"), std::string::npos);
  map.columns.resize(30);
  map.values.resize(30, 0.4);
  EXPECT_EQ(draw(map).find(">40</text>"), std::string::npos);
}

TEST(Plot, HeatMapsTurnWhenTheirColumnsWouldBeTooNarrow) {
  HeatMap map{.frame = {.title = "t"}, .row_label = "tensor", .column_label = "layer"};
  map.rows = {"attn_q_a", "ffn_down_exps"};
  for (int i = 0; i < 61; ++i) map.columns.push_back(std::to_string(i));
  map.percent = true;
  map.values.assign(2 * 61, 0.01);
  map.values[61] = 0.5;  // ffn_down_exps of layer 0
  for (const double width : {720.0, 340.0}) {
    map.frame.width = width;
    const std::string svg = draw(map);
    EXPECT_EQ(count(svg, "rotate(-90)"), width < 400.0 ? 2u : 0u);
    EXPECT_NE(svg.find(width < 400.0 ? ">0, ffn_down_exps: 50 %" : ">ffn_down_exps, 0: 50 %"), std::string::npos);
  }
}

}  // namespace
}  // namespace quern::plot
