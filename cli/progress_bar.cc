#include "cli/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <iostream>

#include "cli/cli.h"
#include "formats/base/resources.h"

// A line that is longer than the terminal is wide would wrap, and wiping reaches its last part only: so every line is made for the width
// that the terminal has at that moment.

namespace quern::cli {
namespace {

constexpr auto kDrawInterval = std::chrono::milliseconds(200);
constexpr auto kLineInterval = std::chrono::seconds(10);
constexpr size_t kBarWidth = 24;
constexpr size_t kSpareColumns = 3;  // for the "^C" that a terminal shows, and the cursor

std::string duration_text(double seconds) {
  const long long total = static_cast<long long>(seconds + 0.5);
  char text[32];
  if (total >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", total / 3600, total / 60 % 60, total % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld", total / 60, total % 60);
  }
  return text;
}

std::string bar_text(double share) {
  const auto filled = static_cast<size_t>(share * static_cast<double>(kBarWidth));
  return " [" + std::string(filled, '=') + std::string(kBarWidth - filled, ' ') + "]";
}

// Nothing while there is no telling.
std::string time_left(const ProgressState& state) {
  if (state.seconds <= 0 || state.share <= 0) return "";
  return "  " + duration_text(state.seconds * (1 - state.share) / state.share) + " left";
}

}  // namespace

std::string progress_line(const ProgressState& state, size_t columns) {
  char percent[16];
  std::snprintf(percent, sizeof percent, " %3d %%", static_cast<int>(state.share * 100));
  const std::string left = time_left(state), bar = bar_text(state.share), memory = "  " + format_size(state.memory_bytes) + " used";
  for (const std::string& tail : std::array{bar + percent + left + memory, bar + percent + left, percent + left, std::string(percent)}) {
    if (width_of(state.what) + tail.size() <= columns) return state.what + tail;
  }
  const std::string tail = percent;
  return shortened(state.what, columns - std::min(columns, tail.size())) + shortened(tail, columns);
}

ProgressBar::ProgressBar() : screen_(is_quiet() ? Screen::kNone : screen_of(STDERR_FILENO)) {}

ProgressBar::~ProgressBar() { wipe(); }

void ProgressBar::begin(std::string_view phase, uint64_t total) {
  const std::lock_guard lock(mutex_);
  phase_ = phase;
  step_.clear();
  total_ = total;
  done_ = 0;
  start_ = Clock::now();
  next_draw_ = std::max(next_draw_, start_ + kDrawInterval);
}

void ProgressBar::advance(uint64_t done) {
  const std::lock_guard lock(mutex_);
  done_ += done;
  if (screen_ == Screen::kNone) return;
  const auto now = Clock::now();
  if (now >= next_draw_) draw(now);
}

void ProgressBar::step(std::string_view text) {
  const std::lock_guard lock(mutex_);
  step_ = text.empty() ? "" : " " + printable(text);
}

void ProgressBar::draw(Clock::time_point now) {
  const double share = total_ == 0 ? 1.0 : std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  const ProgressState state{phase_ + step_, share, std::chrono::duration<double>(now - start_).count(), peak_resident_bytes()};
  const size_t columns = columns_of(STDERR_FILENO);
  const std::string line = progress_line(state, columns - std::min(columns, kSpareColumns));
  if (screen_ == Screen::kTypewriter) {
    std::cerr << line << '\n';
    next_draw_ = now + kLineInterval;
    return;
  }
  std::cerr << "\r\033[K" << line << std::flush;
  drawn_ = true;
  next_draw_ = now + kDrawInterval;
}

void ProgressBar::wipe() {
  if (drawn_) std::cerr << "\r\033[K" << std::flush;
  drawn_ = false;
}

void ProgressBar::end() {
  const std::lock_guard lock(mutex_);
  wipe();
}

void ProgressBar::note(std::string_view text) {
  const std::lock_guard lock(mutex_);
  wipe();
  std::clog << "quern: " << text << '\n';
}

void ProgressBar::warn(std::string_view text) {
  const std::lock_guard lock(mutex_);
  wipe();
  print_warning(text);
}

}  // namespace quern::cli
