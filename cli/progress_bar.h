#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "cli/terminal.h"
#include "formats/base/progress.h"

namespace quern::cli {

// One line at the bottom of the terminal with a bar, the time left and the memory used at most so far, redrawn a few times per second and
// wiped at the end. A terminal that cannot wipe gets a line now and then, what is no terminal gets none, nor does anybody with --quiet.
// Notes and warnings are lines on stderr, wherever it goes.
class ProgressBar final : public Progress {
 public:
  ProgressBar();
  ~ProgressBar() override;
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void begin(std::string_view phase, uint64_t total) override;
  void advance(uint64_t done) override;
  void step(std::string_view text) override;
  void end() override;
  void note(std::string_view text) override;
  void warn(std::string_view text) override;

 private:
  using Clock = std::chrono::steady_clock;
  void draw(Clock::time_point now);
  void wipe();

  const Screen screen_;
  std::mutex mutex_;
  std::string phase_;
  std::string step_;
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point next_draw_;
};

struct ProgressState {
  std::string what;    // "evaluating layer 3/61"
  double share = 0;    // of the phase that is done, 0 to 1
  double seconds = 0;  // since it began
  uint64_t memory_bytes = 0;
};

// "evaluating layer 3/61 [=====     ]  45 %  2:05 left  1.2 GB used" in at most that many columns. What does not fit is left out, in this
// order: the memory, the bar, the time; then `what` is cut.
std::string progress_line(const ProgressState& state, size_t columns);

}  // namespace quern::cli
