#pragma once

#include <cstdint>
#include <span>

#include "quantize/feedback/factor.h"

namespace quern {

// Sequential mode: a layer whose inputs x' already carry the errors of the layers before it should give what the original gives for the
// original's inputs x. The mean of (w x - v x')^2 over a text is least for
//
//     v = w C H'^-1 = w + w S H'^-1,   H' = mean of x' x'^T,   C = mean of x x'^T,   S = C - H' = mean of (x - x') x'^T
//
// and grows by (v - y) H' (v - y)^T for any other y: error feedback towards v, with the factor of H'. The rule is that of asymmetric
// calibration (GPTAQ, Li et al. 2025); the step below, its damping and its length are ours.
//
// corrections = w S H'^-1, with the damped H' that the factor is of. w: [n_rows, n], row-major; shift: S, [n, n], row-major.
// Same bits on every CPU and for every split of the rows; single-threaded; about 2 n multiplications per weight.
void shift_corrections(std::span<const float> w, int64_t n_rows, const FeedbackFactor& factor, std::span<const float> shift,
                       std::span<float> corrections);

}  // namespace quern
