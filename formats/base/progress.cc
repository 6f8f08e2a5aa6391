#include "formats/base/progress.h"

#include <atomic>

#include "formats/base/error.h"

namespace quern {
namespace {

class NoProgress final : public Progress {
 public:
  void begin(std::string_view, uint64_t) override {}
  void advance(uint64_t) override {}
  void step(std::string_view) override {}
  void end() override {}
  void note(std::string_view) override {}
  void warn(std::string_view) override {}
};

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the flag is set in a signal handler");

}  // namespace

Progress& no_progress() {
  static NoProgress none;  // stateless
  return none;
}

void request_interrupt() noexcept { interrupted.store(true, std::memory_order_relaxed); }

void throw_if_interrupted() {
  if (interrupted.load(std::memory_order_relaxed)) throw Error(ErrorKind::kInterrupted, "interrupted");
}

}  // namespace quern
