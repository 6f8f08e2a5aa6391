#include "formats/gguf/metadata.h"
#include "formats/base/hand_over.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#ifndef QUERN_THREAD_SANITIZER  // which has an operator new of its own

namespace {

// The allocation that fails, counted down; 0: none.
thread_local long failing = 0;

}  // namespace

// Not inlined: GCC takes a pair of malloc and delete in one function for a mistake.
[[gnu::noinline]] void* operator new(size_t size) {
  if (failing > 0 && --failing == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace quern {
namespace {

// Number of allocations that failed before the copy went through.
template <typename Copy>
long failures_until_copied(const Copy& copy) {
  for (long n = 1;; ++n) {
    failing = n;
    try {
      copy();
      failing = 0;
      return n - 1;
    } catch (const std::bad_alloc&) {
    }
  }
}

TEST(MetaValue, SurvivesEveryAllocationOfACopyThatFails) {
  const std::string text(100, 'x');
  for (const MetaValue& value : {MetaValue(text), MetaValue(std::vector<std::string>{text, text}), MetaValue(std::vector<bool>{true}),
                                 MetaValue(std::vector<double>{1.0})}) {
    MetaValue target = uint8_t{1};
    EXPECT_GE(failures_until_copied([&] { target = value; }), 1);
    EXPECT_EQ(target, value);
  }
}

TEST(Metadata, SurvivesEveryAllocationOfACopyThatFails) {
  Metadata metadata;
  metadata.set("a long key that does not fit into a short string", std::vector<std::string>{"x", "y"});
  metadata.set("number", uint32_t{7});
  metadata.set("text", std::string(100, 'x'));
  Metadata copy;
  EXPECT_GE(failures_until_copied([&] { copy = metadata; }), 4);
  EXPECT_EQ(copy.entries(), metadata.entries());
}

}  // namespace
}  // namespace quern

#endif
