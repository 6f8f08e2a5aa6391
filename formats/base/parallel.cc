#include "formats/base/parallel.h"

#include <tbb/blocked_range.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>

#include "formats/base/hand_over.h"
#include "formats/base/resources.h"

// oneTBB divides the work; three things are added. Slices are never shorter than the grain that was asked for. How many neighbouring slices
// one call gets remains TBB's choice, so results must not depend on where a call begins. ThreadSanitizer is told what TBB's own
// synchronisation guarantees (hand_over.h). And because a thread that waits in TBB picks up any other task meanwhile, which may want what
// it holds itself, side_by_side() waits in an isolation of its own.

namespace quern {

ThreadLimit::ThreadLimit(int n_threads)
    : control_(new tbb::global_control(tbb::global_control::max_allowed_parallelism,
                                       static_cast<size_t>(n_threads > 0 ? n_threads : available_threads()))) {}

ThreadLimit::~ThreadLimit() { delete static_cast<tbb::global_control*>(control_); }

int thread_limit() { return static_cast<int>(tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism)); }

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  // TBB splits ranges down to half its grain size. Cutting [0, n) into equal slices first keeps every call at `grain` or more.
  const int64_t n_slices = std::max<int64_t>(n / std::max<int64_t>(grain, 1), 1);
  const auto slice_begin = [=](int64_t slice) { return n / n_slices * slice + std::min(slice, n % n_slices); };
  const char begun = 0, done = 0;  // keys
  hand_over(&begun);
  tbb::parallel_for(tbb::blocked_range<int64_t>(0, n_slices), [&](const tbb::blocked_range<int64_t>& slices) {
    take_over(&begun);
    body(slice_begin(slices.begin()), slice_begin(slices.end()));
    hand_over(&done);
  });
  take_over(&done);
}

void side_by_side(std::initializer_list<std::function<void()>> tasks) {
  tbb::this_task_arena::isolate([&] {
    parallel_for(static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) tasks.begin()[i]();
    });
  });
}

}  // namespace quern
