#pragma once

#include <limits>
#include <string>
#include <vector>

#include "verify/draw/plot.h"

namespace quern::plot {

struct Tick {
  double value = 0.0;
  std::string text;  // empty: a grid line without a number
};

// The smallest and largest of the values that an axis can show; feeds Scale.
struct Extent {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  bool has_zero = false;  // a value <= 0 was met on a log axis
  void include(double value, bool log) noexcept;
};

// Values to pixels, along one axis. low < high always, whatever the extent; a log scale has low > 0. Ends are round numbers.
class Scale {
 public:
  Scale(const Axis& axis, const Extent& extent, int max_ticks);

  void set_pixels(double low_px, double high_px) noexcept;  // where low and high are
  double at(double value) const noexcept;                   // clamped to the ends
  bool holds(double value) const noexcept;                  // finite and within the ends
  double low() const noexcept { return low_; }
  double high() const noexcept { return high_; }
  const std::vector<Tick>& ticks() const noexcept { return ticks_; }
  double widest_tick() const;

 private:
  void choose_linear(int max_ticks, bool fixed_low, bool fixed_high);
  void choose_log(int max_ticks, bool fixed_low, bool fixed_high);
  std::string tick_text(double value, double step) const;

  bool log_;
  bool percent_;
  bool integers_;
  double low_, high_;
  double low_px_ = 0.0, high_px_ = 1.0;
  std::vector<Tick> ticks_;
};

// The largest of 1, 2, 5 x 10^k that is not above the positive value, and the smallest not below it.
double round_down_125(double value);
double round_up_125(double value);

}  // namespace quern::plot
