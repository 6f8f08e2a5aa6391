#pragma once

#include <gtest/gtest.h>

#include <hwy/targets.h>

namespace quern {

// Calls body once for each set of vector instructions that this machine has.
template <typename Body>
void on_every_target(Body body) {
  for (int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    SCOPED_TRACE(hwy::TargetName(rest & -rest));
    hwy::SetSupportedTargetsForTest(rest & -rest);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace quern
