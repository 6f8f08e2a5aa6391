#include "verify/draw/plot_scale.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "verify/draw/markup.h"
#include "verify/draw/plot_canvas.h"

// Ends and ticks are chosen together, since an axis looks finished when it ends on a tick. The step of a linear axis is the smallest of 1,
// 2, 5 times a power of ten that gives no more ticks than there is room for; a log axis thins out its decades. Values are clamped to 1e-100
// .. 1e100 first and loops run over ticks, never over values, so that no input makes them long. Comparisons have a slack of 1e-9: steps are
// not exact in binary, and a tick must not be lost to the last bit.

namespace quern::plot {
namespace {

constexpr double kSlack = 1e-9;  // relative: 0.30000000000000004 is a tick at 0.3

double power_of_ten(int exponent) { return std::pow(10.0, exponent); }
int decade_of(double value) { return static_cast<int>(std::floor(std::log10(value) + kSlack)); }

}  // namespace

double round_down_125(double value) {
  const double unit = power_of_ten(decade_of(value));
  const double mantissa = value / unit * (1.0 + kSlack);
  return (mantissa >= 5.0 ? 5.0 : mantissa >= 2.0 ? 2.0 : 1.0) * unit;
}

double round_up_125(double value) {
  const double unit = power_of_ten(decade_of(value));
  const double mantissa = value / unit * (1.0 - kSlack);
  return (mantissa <= 1.0 ? 1.0 : mantissa <= 2.0 ? 2.0 : mantissa <= 5.0 ? 5.0 : 10.0) * unit;
}

void Extent::include(double value, bool log) noexcept {
  // Beyond these, differences and decades of doubles overflow; no plot needs them.
  constexpr double kLargest = 1e100, kSmallest = 1e-100;
  if (!std::isfinite(value)) return;
  value = std::clamp(value, -kLargest, kLargest);
  if (log && value <= 0.0) {
    has_zero = true;
    return;
  }
  if (log) value = std::max(value, kSmallest);
  low = std::min(low, value);
  high = std::max(high, value);
}

Scale::Scale(const Axis& axis, const Extent& extent, int max_ticks) : log_(axis.log), percent_(axis.percent), integers_(axis.integers) {
  const bool empty = extent.low > extent.high;
  low_ = axis.low.value_or(empty ? (log_ ? 1e-3 : 0.0) : extent.low);
  high_ = axis.high.value_or(empty ? 1.0 : extent.high);
  if (!(low_ < high_)) {
    const double middle = low_;
    low_ = log_ ? middle / 2.0 : middle - (middle == 0.0 ? 1.0 : std::fabs(middle) / 2.0);
    high_ = log_ ? middle * 2.0 : middle + (middle == 0.0 ? 1.0 : std::fabs(middle) / 2.0);
  }
  max_ticks = std::max(2, max_ticks);
  log_ ? choose_log(max_ticks, axis.low.has_value(), axis.high.has_value())
       : choose_linear(max_ticks, axis.low.has_value(), axis.high.has_value());
}

void Scale::choose_linear(int max_ticks, bool fixed_low, bool fixed_high) {
  double step = round_up_125((high_ - low_) / max_ticks);
  if (integers_) step = std::max(1.0, std::round(step));
  const double start = std::floor(low_ / step + kSlack) * step;
  if (!fixed_low && !(log_ && start <= 0.0)) low_ = start;
  if (!fixed_high) high_ = std::ceil(high_ / step - kSlack) * step;
  const double first = std::ceil(low_ / step - kSlack);
  for (int i = 0; i <= 2 * max_ticks && (first + i) * step <= high_ + kSlack * step; ++i) {  // adding 1 to 1e17 goes nowhere
    ticks_.push_back({(first + i) * step, tick_text((first + i) * step, step)});
  }
}

// Less than a decade gets the ticks of a linear axis, two decades every 1, 2, 5, more decades powers of ten, of which every second or
// third has a number if they are many.
void Scale::choose_log(int max_ticks, bool fixed_low, bool fixed_high) {
  const double decades = std::log10(high_ / low_);
  if (decades < 1.0) return choose_linear(max_ticks, fixed_low, fixed_high);
  const bool narrow = decades < 2.3;
  if (!fixed_low) low_ = narrow ? round_down_125(low_) : power_of_ten(decade_of(low_));
  if (!fixed_high) high_ = narrow ? round_up_125(high_) : power_of_ten(-decade_of(1.0 / high_));
  const int first = decade_of(low_), last = decade_of(high_), stride = (last - first) / max_ticks + 1;
  const bool powers = decade_of(low_) < -4 && !narrow && !percent_;  // not 0.001 beside 10^-5
  for (int decade = first; decade <= last; decade += stride) {
    for (const double mantissa : {1.0, 2.0, 5.0}) {
      const double value = mantissa * power_of_ten(decade);
      if (value < low_ * (1.0 - kSlack) || value > high_ * (1.0 + kSlack) || (mantissa > 1.0 && !narrow)) continue;
      const bool numbered = mantissa == 1.0 || 3 * (last - first + 1) <= max_ticks + 2;
      ticks_.push_back({value, !numbered ? "" : powers && decade < -2 ? ten_to_the(decade) : tick_text(value, value)});
    }
  }
}

std::string Scale::tick_text(double value, double step) const {
  if (std::fabs(value) < step * 1e-6) value = 0.0;
  if (percent_) {
    value *= 100.0;
    step *= 100.0;
  }
  std::string text;
  if (std::fabs(value) >= 1e6 || (value != 0.0 && std::fabs(value) < 1e-4)) {
    text = readable_number(value, 3);
  } else {
    char digits[64];
    std::snprintf(digits, sizeof digits, "%.*f", std::max(0, -decade_of(step)), std::fabs(value));
    text = (value < 0.0 ? "−" : "") + std::string(digits);
  }
  return percent_ ? text + " %" : text;
}

void Scale::set_pixels(double low_px, double high_px) noexcept {
  low_px_ = low_px;
  high_px_ = high_px;
}

double Scale::at(double value) const noexcept {
  value = std::clamp(value, low_, high_);
  const double share = log_ ? std::log(value / low_) / std::log(high_ / low_) : (value - low_) / (high_ - low_);
  return low_px_ + share * (high_px_ - low_px_);
}

bool Scale::holds(double value) const noexcept {
  return std::isfinite(value) && value >= low_ - std::fabs(low_) * kSlack && value <= high_ + std::fabs(high_) * kSlack;
}

double Scale::widest_tick() const {
  double widest = 0.0;
  for (const Tick& tick : ticks_) widest = std::max(widest, text_width(tick.text));
  return widest;
}

}  // namespace quern::plot
