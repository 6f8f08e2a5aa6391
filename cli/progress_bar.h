#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "formats/base/progress.h"

namespace quern::cli {

// A bar with bytes per second, the time left and the memory used at most so far, redrawn a few times per second; shows nothing when
// stderr is not a terminal. Notes and warnings are lines on stderr, wherever it goes.
class ProgressBar final : public Progress {
 public:
  ProgressBar();

  void begin(std::string_view phase, uint64_t total) override;
  void advance(uint64_t done) override;
  void step(std::string_view text) override;
  void end() override;
  void note(std::string_view text) override;
  void warn(std::string_view text) override;

 private:
  using Clock = std::chrono::steady_clock;
  void draw(Clock::time_point now);

  const bool terminal_;
  std::mutex mutex_;
  std::string phase_;
  std::string step_;
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  Clock::time_point start_;
  Clock::time_point next_draw_;
};

// "converting [=====     ]  45 %  1.2 GB/s  2:05 left", without the line's end. For tests separate from the terminal.
std::string progress_line(std::string_view phase, uint64_t done, uint64_t total, double seconds);

}  // namespace quern::cli
