#include "cli/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "cli/cli.h"
#include "formats/base/resources.h"

namespace quern::cli {
namespace {

constexpr auto kDrawInterval = std::chrono::milliseconds(200);
constexpr size_t kBarWidth = 24;

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

}  // namespace

std::string progress_line(std::string_view phase, uint64_t done, uint64_t total, double seconds) {
  const double share = total == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const size_t filled = static_cast<size_t>(share * static_cast<double>(kBarWidth));
  char percent[16];
  std::snprintf(percent, sizeof percent, "%3d %%", static_cast<int>(share * 100));
  std::string line = std::string(phase) + " [" + std::string(filled, '=') + std::string(kBarWidth - filled, ' ') + "] " + percent;
  if (seconds <= 0 || done == 0) return line;
  line += "  " + format_size(static_cast<uint64_t>(static_cast<double>(done) / seconds)) + "/s";
  return line + "  " + duration_text(seconds * (1 - share) / std::max(share, 1e-9)) + " left";
}

ProgressBar::ProgressBar() : terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::begin(std::string_view phase, uint64_t total) {
  const std::lock_guard lock(mutex_);
  phase_ = phase;
  step_.clear();
  total_ = total;
  done_ = 0;
  start_ = Clock::now();
  next_draw_ = start_ + kDrawInterval;
}

void ProgressBar::advance(uint64_t done) {
  const std::lock_guard lock(mutex_);
  done_ += done;
  const auto now = Clock::now();
  if (!terminal_ || now < next_draw_) return;
  next_draw_ = now + kDrawInterval;
  draw(now);
}

void ProgressBar::step(std::string_view text) {
  const std::lock_guard lock(mutex_);
  step_ = " " + std::string(text);
}

void ProgressBar::draw(Clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - start_).count();
  std::cerr << "\r\033[K" << progress_line(phase_ + step_, done_, total_, seconds) << "  " << format_size(peak_resident_bytes()) << " used"
            << std::flush;
}

void ProgressBar::end() {
  if (terminal_) std::cerr << "\r\033[K" << std::flush;
}

void ProgressBar::note(std::string_view text) {
  const std::lock_guard lock(mutex_);
  std::cerr << "quern: " << text << '\n';
}

void ProgressBar::warn(std::string_view text) {
  const std::lock_guard lock(mutex_);
  print_warning(text);
}

}  // namespace quern::cli
