#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>

namespace quern {

// Caps all parallelism below while it lives (oneTBB global_control). One per process, made by the command line.
class ThreadLimit {
 public:
  explicit ThreadLimit(int n_threads);  // 0: as many as are available
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  void* control_;
};

int thread_limit();  // the cap in force

// body(begin, end) over [0, n) in slices of at least `grain`; the first exception thrown is rethrown here.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

// Runs all of these, side by side where threads are free. Whoever waits here does not begin anything else meanwhile, so it may be called
// where others wait for the caller.
void side_by_side(std::initializer_list<std::function<void()>> tasks);

}  // namespace quern
