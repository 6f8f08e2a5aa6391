#pragma once

// libtbb is not built with ThreadSanitizer, which therefore does not see that TBB puts what one thread did before what another does next.
// These say so where we rely on it: what comes before hand_over(key) comes before what follows a later take_over(key). In other
// builds they do nothing.

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
extern "C" void __tsan_acquire(void* key);
extern "C" void __tsan_release(void* key);
#define QUERN_THREAD_SANITIZER
#endif
#endif

namespace quern {

inline void hand_over([[maybe_unused]] const void* key) noexcept {
#ifdef QUERN_THREAD_SANITIZER
  __tsan_release(const_cast<void*>(key));
#endif
}

inline void take_over([[maybe_unused]] const void* key) noexcept {
#ifdef QUERN_THREAD_SANITIZER
  __tsan_acquire(const_cast<void*>(key));
#endif
}

}  // namespace quern
