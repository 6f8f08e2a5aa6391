#include "formats/base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "formats/base/error.h"
#include "tests/formats/expect_error.h"

namespace quern {
namespace {

TEST(ParallelFor, VisitsEveryIndexOnceInSlicesOfTheGrain) {
  for (const int64_t n : {0, 1, 7, 64, 1000}) {
    for (const int64_t grain : {1, 3, 10, 5000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
      std::atomic<int64_t> smallest = n;
      parallel_for(n, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        int64_t seen = smallest;
        while (end - begin < seen && !smallest.compare_exchange_weak(seen, end - begin)) {
        }
      });
      for (const auto& count : visits) EXPECT_EQ(count, 1);
      EXPECT_GE(smallest, std::min(n, grain));
    }
  }
}

TEST(ParallelFor, RethrowsAnException) {
  EXPECT_ERROR(parallel_for(100, 1,
                            [](int64_t begin, int64_t) {
                              if (begin > 40) throw Error(ErrorKind::kFormat, "in a worker");
                            }),
               ErrorKind::kFormat, "in a worker");
}

TEST(ThreadLimit, HoldsWhileItLives) {
  const int before = thread_limit();
  {
    const ThreadLimit limit(1);
    EXPECT_EQ(thread_limit(), 1);
  }
  EXPECT_EQ(thread_limit(), before);
}

}  // namespace
}  // namespace quern
